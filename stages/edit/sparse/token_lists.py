"""Which tokens of an edit are computed: lists of tokens by level of the U-Net, of a few fixed lengths.

A *token* is a pixel of a feature map. Level 0 has the latents' size, and each further level half of the side
of the one before.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.nn import functional

from stages.edit.prompt_to_prompt.fusion import pool_mask

SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2)
"""Lengths of lists at level 0, as shares of the picture. An edit of a larger region is computed whole: the
gathered convolutions of more than half of a picture take as long as those of all of it."""

TRANSFORMER_SHARES = tuple(part / 16 for part in range(1, 16))
"""The same for a transformer. It gathers nothing, so larger lists save time too."""

Size = tuple[int, int]
"""Rows and columns of a feature map."""


def free_tokens(mask: torch.Tensor, above: float, size: Size, halo: int) -> torch.Tensor:
    """The tokens that differ from the source, with a halo around them, bool [E,h,w].

    Args:
        mask: M [E,1,H,W] in [0,1].
        above: what M must exceed (:func:`~stages.edit.prompt_to_prompt.fusion.free_above`).
        size: h, w.
        halo: width of the halo in tokens.
    """
    free = (pool_mask(mask, *size) > above).float()
    return functional.max_pool2d(free, 2 * halo + 1, 1, halo)[:, 0] > 0


def level_sizes(size: Size, levels: int) -> list[Size]:
    """The sizes of the feature maps of all levels."""
    return [(size[0] >> level, size[1] >> level) for level in range(levels)]


def list_lengths(share: float, sizes: Sequence[Size]) -> list[int]:
    """The lengths of the lists of all levels for a region of this share of the picture.

    A coarser level has room for a square region of this share that its tokens' borders cut at its worst.
    """
    height, width = sizes[0]
    lengths = [round(share * height * width)]
    for level, (rows, columns) in enumerate(sizes[1:], 1):
        side = math.sqrt(share * height * width) / 2**level + 2
        lengths.append(min(rows * columns, math.ceil(side * side / 8) * 8))
    return lengths


def needed_share(free: torch.Tensor, sizes: Sequence[Size], shares: Sequence[float] = SHARES) -> float:
    """The smallest of the shares whose lists hold the free tokens, bool [h,w], at every level.

    It is 0 if no token is free, and 1 if the picture has to be computed whole.
    """
    counts = [int(_pooled(free, size).sum()) for size in sizes]
    if counts[0] == 0:
        return 0
    for share in shares:
        lengths = list_lengths(share, sizes)
        if all(count <= length for count, length in zip(counts, lengths, strict=True)):
            return share
    return 1


def token_lists(free: torch.Tensor, share: float, sizes: Sequence[Size]) -> list[torch.Tensor]:
    """The tokens to compute at every level, each int64 [L] in increasing order.

    A list with room is filled up with the tokens nearest to the free ones, so that it has no padding: all its
    entries are different tokens.
    """
    lists = []
    for size, length in zip(sizes, list_lengths(share, sizes), strict=True):
        distance = _distance(_pooled(free, size))
        nearest = torch.sort(distance.flatten(), stable=True).indices[:length]
        lists.append(nearest.sort().values)
    return lists


def _pooled(free: torch.Tensor, size: Size) -> torch.Tensor:
    return functional.adaptive_max_pool2d(free[None].float(), size)[0] > 0


def _distance(free: torch.Tensor) -> torch.Tensor:
    """For each token, the larger of its distances to the nearest free token in rows and in columns."""
    return torch.from_numpy(cv2.distanceTransform((~free).numpy().astype(np.uint8), cv2.DIST_C, 3))
