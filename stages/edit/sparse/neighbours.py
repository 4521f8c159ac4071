"""The tokens that a 3x3 convolution reads, as indices into a table of stored tokens.

A convolution of a list gathers nine tokens for each of its outputs: its edit's own tokens where the list has
them, and its source's elsewhere. What is outside of the picture reads a row of zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stages.edit.sparse.token_lists import Size


@dataclass(frozen=True)
class Kind:
    """One kind of 3x3 convolution.

    Attributes:
        level: the level of the tokens that it reads.
        stride: 2 if its outputs belong to the next coarser level.
        upsamples: whether its outputs belong to the next finer level. It then reads each token as the four
            finer ones, without making these.
    """

    level: int
    stride: int = 1
    upsamples: bool = False

    @property
    def output_level(self) -> int:
        return self.level - 1 if self.upsamples else self.level + (self.stride == 2)


def kinds_of(levels: int) -> list[Kind]:
    """All kinds of 3x3 convolutions in a U-Net with so many levels."""
    plain = [Kind(level) for level in range(levels)]
    down = [Kind(level, stride=2) for level in range(levels - 1)]
    return plain + down + [Kind(level, upsamples=True) for level in range(1, levels)]


def neighbours(outputs: torch.Tensor, kind: Kind, sizes: Sequence[Size]) -> torch.Tensor:
    """The tokens that a convolution reads for output tokens [n,L]: int64 [n,L,9], -1 outside of the picture.

    The tokens are numbered row by row in the feature map of ``kind.level``.
    """
    columns = sizes[kind.output_level][1]
    scale = 2 if kind.upsamples else 1
    height, width = (side * scale for side in sizes[kind.level])
    shift = torch.arange(-1, 2)
    y = (outputs // columns * kind.stride)[..., None, None] + shift[:, None]
    x = (outputs % columns * kind.stride)[..., None, None] + shift
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = torch.div(y, scale, rounding_mode="floor") * (width // scale)
    index = index + torch.div(x, scale, rounding_mode="floor")
    return torch.where(inside, index, -1).flatten(-2)


def positions(lists: torch.Tensor, tokens: int) -> torch.Tensor:
    """For lists [n,L], each token's place in its list: int64 [n,tokens], -1 for tokens that are not in it."""
    places = torch.full((len(lists), tokens), -1)
    return places.scatter_(1, lists, torch.arange(lists.shape[1]).expand_as(lists))
