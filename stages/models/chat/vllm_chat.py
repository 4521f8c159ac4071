"""A language model in this process by vLLM, for those who want no server. vLLM is no dependency: install it.

vLLM batches continuously: a question starts when another ends. Its own structured outputs hold replies to
their form. Each question has its own seed, but a reply can depend on the questions beside it in its last bits
and so in its words, as vLLM's documentation says: answers are not reproducible to the byte.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from stages.base import Weights
from stages.models.chat.config import TextChatConfig
from stages.models.chat.conversation import Question, Reply, Usage
from stages.models.chat.line import Line
from stages.models.chat.sampling import special_tokens
from stages.models.chat.transformers_chat import prompt_tokens
from stages.models.weights import load_processor

# The engine runs in this process, so that it ends and frees the GPU with it, however it ends.
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}

MEMORY, MEMORY_OF_A_CPU = 0.9, 0.25
"""The part of the device's memory that vLLM takes for weights and keys and values."""


class VllmChat:
    """Answers questions with a model of vLLM.

    Args:
        config: the model and its sampling.
        slots: questions that vLLM works on at once.
        gpus: GPUs of this process, or the share of one; 0 for a CPU, of whose memory it takes a part.
        section: the manifest's section of the model, for errors.

    Raises:
        ValueError: vLLM is not installed, or the model cannot be used by it.
    """

    streams = True

    def __init__(self, config: TextChatConfig, slots: int, gpus: float, section: str) -> None:
        os.environ.update(IN_PROCESS)
        try:
            from vllm import EngineArgs, LLMEngine
        except ImportError as error:
            raise ValueError(
                f"{section}.library: vllm cannot be imported ({error}): pip install vllm, in an environment "
                "of its own if its torch is another one; or use a server, with the section's endpoint"
            ) from error
        self._config, self.slots = config, slots
        key = f"{section}.model"
        weights = Weights(model=config.model, revision=config.revision)
        self._tokenizer: PreTrainedTokenizerBase = load_processor(AutoTokenizer, weights, key)
        if self._tokenizer.chat_template is None:
            raise ValueError(f"{key}: its tokenizer has no chat template; use a chat model")
        self._special = special_tokens(self._tokenizer)
        arguments = EngineArgs(
            model=config.name,
            revision=config.revision,
            dtype=config.dtype,
            max_num_seqs=slots,
            tensor_parallel_size=max(1, int(gpus)),
            gpu_memory_utilization=MEMORY * min(gpus, 1) if gpus else MEMORY_OF_A_CPU,
            disable_log_stats=True,
        )
        try:
            self._engine = LLMEngine.from_engine_args(arguments)
        except (OSError, ValueError) as error:
            raise ValueError(f"{key}: vLLM cannot use {config.model}: {error}") from error

    def identity(self, question: Question) -> str | None:
        return None  # its replies cost time, but no money

    @contextmanager
    def opened(self) -> Iterator[Line]:
        line = _Requests(self._engine, self.slots, self._prompt, self._params)
        try:
            yield line
        finally:
            line.give_up()

    def _prompt(self, question: Question) -> dict[str, Any]:
        return {"prompt_token_ids": prompt_tokens(self._tokenizer, question.messages, self._special)}

    def _params(self, question: Question) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        return SamplingParams(
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            max_tokens=self._config.max_new_tokens,
            seed=question.seed % 2**31,
            structured_outputs=StructuredOutputsParams(json=dict(question.form["json_schema"]["schema"])),
        )


class _Requests:
    """The questions in vLLM's engine."""

    def __init__(self, engine: Any, slots: int, prompt: Any, params: Any) -> None:
        self._engine, self.slots, self._prompt, self._params = engine, slots, prompt, params
        self._waiting: set[int] = set()
        self._refused: list[tuple[int, Reply | Exception]] = []

    def put(self, number: int, question: Question) -> None:
        try:
            self._engine.add_request(str(number), self._prompt(question), self._params(question))
        except ValueError as error:  # such as a prompt longer than the model takes
            self._refused.append((number, error))
            return
        self._waiting.add(number)

    def wait(self) -> Sequence[tuple[int, Reply | Exception]]:
        answered, self._refused = self._refused, []
        while not answered:
            answered = [(int(made.request_id), _reply(made)) for made in self._engine.step() if made.finished]
        self._waiting -= {number for number, _ in answered}
        return answered

    def give_up(self) -> None:
        self._engine.abort_request([str(number) for number in self._waiting])
        self._waiting.clear()


def _reply(made: Any) -> Reply | Exception:
    [output] = made.outputs
    usage = Usage(len(made.prompt_token_ids or ()), len(output.token_ids))
    if output.finish_reason in ("stop", "length"):
        return Reply(output.text, "stop" if output.finish_reason == "stop" else "truncated", usage)
    return RuntimeError(f"vLLM ended the reply: {output.finish_reason}")
