"""Masks of text as a channel of its keys.

So a mask goes wherever the keys of a row go: a control that has an edit attend to its source's keys need not
know that they are masked.
"""

import torch
from torch.nn import functional

MASK_CHANNELS = 8
"""By how many channels heads become wider: one is enough, but fused kernels want multiples of 8."""
UNSEEN = -10_000.0
"""The logit of a key that is not to be seen, whose weight is then 0."""


def masked_keys(key: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Keys [R,heads,L,D+8], of which those are seen whose ``seen`` [R,L] is 1, not 0."""
    logits = (1 - seen.to(key.dtype)[:, None, :, None]) * UNSEEN
    return _widened(key, logits.expand(-1, key.shape[1], -1, -1))


def seeing(query: torch.Tensor, scale: float) -> torch.Tensor:
    """Queries [R,heads,L,D+8] of masked keys, for an attention with a scale."""
    return _widened(query, torch.full_like(query[..., :1], 1 / scale))


def _widened(heads: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
    return functional.pad(torch.cat([heads, channel], -1), (0, MASK_CHANNELS - 1))
