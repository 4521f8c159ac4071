"""A causal language model of transformers, in process. Each row's reply depends on its own seed only.

transformers' ``generate`` samples a whole batch from one global generator, so a row would depend on its
neighbours. Here each row draws Gumbel noise from its own generator, batches are filled to a fixed size with
dummy rows, and prompts are padded on the left to a multiple of a fixed length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.base import Weights
from stages.finite import NotFiniteError
from stages.models.batches import filled
from stages.models.chat.conversation import Message, Reply, Usage
from stages.models.chat.line import BatchModel
from stages.models.chat.sampling import Sampling, defused, draw, end_tokens, is_spoiled, special_tokens
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor

SPOILED = -1
"""In place of a token where the model's output is not finite."""


class TransformersChat(BatchModel):
    """Completes conversations with a causal language model.

    Args:
        model: a causal LM that supports ``logits_to_keep`` (all current transformers decoders do).
        tokenizer: its tokenizer, with a chat template.
        sampling: the sampling settings.
        batch: rows per forward pass. More rows raise an error, fewer are filled with dummy rows.
        prompt_multiple: prompts are padded to a multiple of this many tokens.
        section: the manifest's section of the model, for errors.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        batch: int,
        prompt_multiple: int = 64,
        section: str = "instruct",
    ) -> None:
        if tokenizer.chat_template is None:
            raise ValueError(f"{section}.model: its tokenizer has no chat template; use a chat model")
        self._section = section
        self.model, self.tokenizer, self.sampling = model, tokenizer, sampling
        self.batch, self.prompt_multiple = batch, prompt_multiple
        self._ends = end_tokens(model, tokenizer, f"{section}.model")
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._ends)
        self._special = special_tokens(tokenizer)

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> list[Reply | Exception]:
        """The assistant's reply to each conversation. Row i draws from ``seeds[i]`` only.

        A row gets a NotFiniteError if the model's scores of its next token are not finite.
        """
        if not 0 < len(conversations) <= self.batch:
            raise ValueError(f"{len(conversations)} conversations in a batch of {self.batch}")
        ids, mask = self.encode(conversations)
        return [
            NotFiniteError(self._section, "the model's output")
            if SPOILED in tokens
            else Reply(
                str(self.tokenizer.decode(tokens, skip_special_tokens=True)),
                "stop" if ended else "truncated",
                Usage(int(prompt.sum()), len(tokens) + ended),
            )
            for (tokens, ended), prompt in zip(self._decode(ids, mask, seeds), mask, strict=False)
        ]

    def encode(self, conversations: Sequence[list[Message]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts as token ids and attention mask, both [batch, n * prompt_multiple]."""
        prompts = []
        for messages in conversations:
            prompts.append(prompt_tokens(self.tokenizer, messages, self._special))
        longest = max(len(prompt) for prompt in prompts)
        length = -(-longest // self.prompt_multiple) * self.prompt_multiple
        prompts = filled(prompts, self.batch)
        ids = torch.tensor([[self._pad] * (length - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        return ids.to(self.model.device), mask.to(self.model.device)

    @torch.inference_mode()
    def _decode(
        self, ids: torch.Tensor, mask: torch.Tensor, seeds: Sequence[int]
    ) -> list[tuple[list[int], bool]]:
        """Each row's tokens, and whether the reply ended by itself. A row that is not finite ends SPOILED."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        answers: list[list[int]] = [[] for _ in seeds]
        done = [False] * len(seeds)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache: Any = None
        for _ in range(self.sampling.max_new_tokens):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()
            tokens = draw(logits, generators, self.sampling)
            drawn = tokens.masked_fill(is_spoiled(logits), SPOILED)
            for row, token in enumerate(drawn[: len(seeds)].tolist()):
                done[row] = done[row] or token in self._ends
                if not done[row]:
                    answers[row].append(token)
                done[row] = done[row] or token == SPOILED
            if all(done):
                break
            ids = tokens[:, None]
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            positions = positions[:, -1:] + 1
        return list(zip(answers, done, strict=True))


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], special: Sequence[str]
) -> list[int]:
    """A conversation as the model reads it, up to where the assistant answers.

    Args:
        tokenizer: with a chat template.
        messages: texts alone.
        special: special tokens, which are broken up within the messages.
    """
    clean = [Message(role=m["role"], content=defused(m["content"], special)) for m in messages]
    text = tokenizer.apply_chat_template(clean, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def load(
    model: str, revision: str | None, dtype: str, section: str = "instruct"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer from a local folder or the hub, on the GPU if there is one.

    ``section`` is the manifest's section of the model, for errors.

    Raises:
        FileNotFoundError: ``model`` looks like a folder and does not exist.
    """
    local = Path(model).is_dir()
    if not local and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"{section}.model: there is no folder {model}; correct the key, or make the weights "
            "(toybox: make toybox)"
        )
    weights = Weights(model=model, revision=revision)
    tokenizer = load_processor(AutoTokenizer, weights, f"{section}.model")
    network = load_model(AutoModelForCausalLM, weights, f"{section}.model", dtype=getattr(torch, dtype))
    torch.nn.Module.to(network, default_device())
    return network.eval(), tokenizer
