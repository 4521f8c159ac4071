"""A vision language model of transformers, in process. Each row's reply depends on its own seed only.

Any model that ``AutoModelForImageTextToText`` knows: LLaVA, Qwen-VL, Idefics, Gemma, ... Each family has its
own way to place a picture's tokens and positions, so transformers' ``generate`` runs the loop. It draws no
token itself: a logits processor leaves it one token per row, drawn from the row's own generator.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    ProcessorMixin,
    StoppingCriteria,
    StoppingCriteriaList,
)

from stages.base import Weights
from stages.finite import NotFiniteError
from stages.models.batches import filled, full_batches
from stages.models.chat.conversation import Message, Picture, Reply, Usage
from stages.models.chat.line import BatchModel
from stages.models.chat.sampling import Sampling, defused, draw, end_tokens, is_spoiled, special_tokens
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor


class VisionChat(BatchModel):
    """Completes conversations about pictures with a vision language model.

    Args:
        model: a model of the class ``AutoModelForImageTextToText``.
        processor: its processor, with a chat template.
        sampling: the sampling settings.
        batch: conversations per forward pass; fewer are filled with dummy rows.
        prompt_multiple: prompts are padded to a multiple of this many tokens.
        key: the model's manifest key, for errors.

    Raises:
        ValueError: the processor has no chat template, or the model no end token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        sampling: Sampling,
        batch: int,
        prompt_multiple: int,
        key: str,
    ) -> None:
        tokenizer = processor.tokenizer
        if not (processor.chat_template or tokenizer.chat_template):
            raise ValueError(f"{key}: its processor has no chat template; use a chat model")
        self.model, self.processor, self.sampling = model, processor, sampling
        self.batch, self.prompt_multiple = batch, prompt_multiple
        self._section = key.split(".")[0]
        self._ends = end_tokens(model, tokenizer, key)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._ends)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self._pad)
        places = [value for name, value in vars(processor).items() if name.endswith("_token")]
        self._special = special_tokens(tokenizer) + [
            text for text in places if isinstance(text, str) and text
        ]

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> list[Reply | Exception]:
        """The assistant's reply to each conversation. Row i draws from ``seeds[i]`` only.

        A row gets a NotFiniteError if the model's scores of its next token are not finite.
        """
        replies: list[Reply | Exception] = []
        for part, _ in full_batches(range(len(conversations)), self.batch):
            replies += self._complete([conversations[i] for i in part], [seeds[i] for i in part])
        return replies

    def encode(self, conversations: Sequence[list[Message]]) -> dict[str, Any]:
        """The model's inputs for exactly ``batch`` conversations: token ids, attention mask, pictures."""
        told = [[self._plain(message) for message in messages] for messages in conversations]
        padding = {"padding": True, "padding_side": "left", "pad_to_multiple_of": self.prompt_multiple}
        inputs = self.processor.apply_chat_template(
            filled(told, self.batch),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=padding,
        )
        return dict(inputs.to(self.model.device, self.model.dtype))

    def _plain(self, message: Message) -> dict[str, Any]:
        content = message["content"]
        parts = [content] if isinstance(content, str) else content
        return {"role": message["role"], "content": [self._part(part) for part in parts]}

    def _part(self, part: str | Picture) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": defused(part, self._special)}
        return {"type": "image", "image": Image.open(BytesIO(part.png), formats=["PNG"]).convert("RGB")}

    @torch.inference_mode()
    def _complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> list[Reply | Exception]:
        inputs = self.encode(conversations)
        mask = inputs["attention_mask"]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawing = _RowDraw(generators, self.sampling, self.batch)
        tokens = self.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=self.sampling.max_new_tokens,
                eos_token_id=sorted(self._ends),
                pad_token_id=self._pad,
            ),
            logits_processor=LogitsProcessorList([drawing]),
            stopping_criteria=StoppingCriteriaList([_DummiesEnd(len(seeds))]),
        )
        answers = tokens[: len(seeds), mask.shape[1] :].tolist()
        return [
            NotFiniteError(self._section, "the model's output")
            if spoiled
            else self._reply(answer, int(row.sum()))
            for answer, row, spoiled in zip(answers, mask, drawing.spoiled.tolist(), strict=False)
        ]

    def _reply(self, tokens: list[int], prompt_tokens: int) -> Reply:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        text = self.processor.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        usage = Usage(prompt_tokens, len(tokens) if end is None else end + 1)
        return Reply(str(text), "truncated" if end is None else "stop", usage)


class _RowDraw(LogitsProcessor):
    """Leaves one token per row: the drawn one. Notes the rows whose scores were once not finite."""

    def __init__(self, generators: Sequence[torch.Generator], sampling: Sampling, rows: int) -> None:
        self._generators, self._sampling = generators, sampling
        self.spoiled = torch.zeros(rows, dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.spoiled |= is_spoiled(scores).cpu()
        drawn = draw(scores.float(), self._generators, self._sampling)
        return torch.full_like(scores, float("-inf")).scatter(-1, drawn[:, None], 0.0)


class _DummiesEnd(StoppingCriteria):
    """Ends dummy rows at once, so that only the rows that were asked for are waited for."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        return torch.arange(len(input_ids), device=input_ids.device) >= self._rows


def load(
    weights: Weights, dtype: str, sampling: Sampling, batch: int, prompt_multiple: int, section: str
) -> VisionChat:
    """A vision language model from a local folder or the hub, on the GPU if there is one.

    Raises:
        OSError, ValueError: it cannot be loaded, or is no chat model. The message names the manifest key.
    """
    key = f"{section}.model"
    processor = load_processor(AutoProcessor, weights, key)
    network = load_model(AutoModelForImageTextToText, weights, key, dtype=getattr(torch, dtype))
    torch.nn.Module.to(network, default_device())
    return VisionChat(network.eval(), processor, sampling, batch, prompt_multiple, key)
