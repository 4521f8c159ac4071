"""How the mask M holds the latents of an edit to those of its source."""

from typing import Literal

import torch
from torch.nn import functional

Fusion = Literal["schedule", "power", "lerp", "none"]
"""How M acts on the latents (:func:`fuse`)."""


def fuse(
    edited: torch.Tensor, source: torch.Tensor, mask: torch.Tensor, how: Fusion, step: int, steps: int
) -> torch.Tensor:
    """Latents of the edits [E,c,h,w] after a step, held to their source's by M [E,1,h,w].

    ``schedule`` (the default): after step i of S a latent is free where M > 1 - i/S, else the
    source's: M says from when a pixel is free, as in Differential Diffusion (Levin and Fried 2023).
    ``lerp``: by M at every step, which compounds to a hard mask. ``power``: by ``M**(1/S)``, so that
    all steps together come to M.
    """
    if how == "schedule":
        return torch.where(mask > 1 - (step + 1) / steps, edited, source)
    return torch.lerp(source, edited, mask ** (1 / steps) if how == "power" else mask)


def pool_mask(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Masks [E,1,H,W] at a smaller size by max pooling: area averages would starve small objects."""
    return functional.adaptive_max_pool2d(mask, (height, width))


def grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a layer of so many tokens, in the proportion of height and width."""
    rows = round((tokens * height / width) ** 0.5)
    return rows, tokens // rows
