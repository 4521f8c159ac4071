"""Latent fusion: the mask M ties an edit's latents to its source's (docs/prompt-to-prompt.md, section 5)."""

from typing import Literal

import torch
from torch.nn import functional

Fusion = Literal["schedule", "power", "lerp", "none"]
"""How M acts on the latents (:func:`fuse`)."""


def fuse(
    edited: torch.Tensor, source: torch.Tensor, mask: torch.Tensor, how: Fusion, step: int, steps: int
) -> torch.Tensor:
    """Fuse the latents of the edits [E,c,h,w] with their sources' after a step, by M [E,1,h,w].

    With S steps, after step i (from 0):

    - ``schedule`` (the default): the edit's latent where M > 1 - (i + 1) / S, else the source's. M determines
    the step
      from which a pixel is free, as in Differential Diffusion (Levin and Fried 2023).
    - ``lerp``: source + M (edit - source). Over all steps this compounds to a nearly binary mask.
    - ``power``: the same with M^(1/S), so that all steps together amount to about M.
    """
    if how == "schedule":
        return torch.where(mask > free_above(how, step, steps), edited, source)
    return torch.lerp(source, edited, mask ** (1 / steps) if how == "power" else mask)


def free_above(how: Fusion, step: int, steps: int) -> float:
    """The value that M must exceed for a pixel to differ from its source's after this step."""
    if how == "schedule":
        return 1 - (step + 1) / steps
    return -1.0 if how == "none" else 0.0


def pool_mask(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Masks [E,1,H,W] at a smaller size, by max pooling: averages would make small objects vanish."""
    return functional.adaptive_max_pool2d(mask, (height, width))


def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer with this many tokens, in the proportion of height and width."""
    rows = round((tokens * height / width) ** 0.5)
    return rows, tokens // rows
