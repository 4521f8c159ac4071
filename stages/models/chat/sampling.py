"""Drawing a token per row: each row from its own generator, so that no row depends on its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling settings; a temperature of 0 takes the most likely token."""

    temperature: float
    top_p: float
    max_new_tokens: int


def draw(logits: torch.Tensor, generators: Sequence[torch.Generator], sampling: Sampling) -> torch.Tensor:
    """Draw one token per row [b] from logits [b,v], by the Gumbel-max trick on the nucleus.

    ``generators`` belong to the first rows. Later rows are dummy rows and get an arbitrary token.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = nucleus(logits / sampling.temperature, sampling.top_p)
    noise = torch.zeros(logits.shape)
    for row, generator in enumerate(generators):
        noise[row] = gumbel(logits.shape[1], generator)
    return (logits + noise.to(logits.device)).argmax(-1)


def gumbel(size: int, generator: torch.Generator) -> torch.Tensor:
    """Gumbel noise [size] for one row.

    If it were made for several rows at once, the logarithm's last bits would depend on the row's place
    (:mod:`stages.models.batches`).
    """
    return -torch.empty(size).exponential_(generator=generator).clamp(min=1e-30).log()


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest most likely tokens whose probabilities sum to ``top_p`` (Holtzman et al. 2020).

    Args:
        logits: [..., v].
        top_p: in (0, 1].

    Returns:
        The logits, with -inf outside the nucleus. The most likely token is always inside.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    outside = before >= top_p
    outside[..., 0] = False
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), float("-inf"))


def is_spoiled(logits: torch.Tensor) -> torch.Tensor:
    """Which rows of logits [b,v] name no token, bool [b]. A single token may have minus infinity."""
    return logits.isnan().any(-1) | logits.isposinf().any(-1) | logits.isneginf().all(-1)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, key: str) -> set[int]:
    """The tokens that end a turn, from the model's generation config and its tokenizer.

    Args:
        key: the model's manifest key, for the error.

    Raises:
        ValueError: neither names one.
    """
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ends = set(configured if isinstance(configured, list) else [configured])
    ends = (ends | {tokenizer.eos_token_id}) - {None}
    if not ends:
        raise ValueError(f"{key}: neither its generation config nor its tokenizer names an end token")
    return ends


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tokenizer's special tokens, the longest first."""
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)


def defused(content: str, special: Sequence[str]) -> str:
    """Break up special tokens, so that a turn's content cannot end the turn."""
    for token in special:
        content = content.replace(token, f"{token[:1]} {token[1:]}")
    return content
