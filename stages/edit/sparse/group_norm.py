"""Group norm of a list of tokens, with the statistics of the source's picture in which the list is pasted.

The source's own statistics would be cheaper, but an object that changes its size or colour changes them:
with the source's, fewer edits were right (``docs/benchmarks.md``).
"""

from dataclasses import dataclass

import torch

_TINY = 1e-12
"""Keeps the deviation of constant tokens from being divided by."""


@dataclass(frozen=True)
class Moments:
    """Means and sums of squared deviations from them, by row and group [R,G], of ``count`` values each."""

    mean: torch.Tensor
    deviation: torch.Tensor
    count: int

    def of(self, rows: torch.Tensor) -> "Moments":
        """A copy of some rows."""
        return Moments(self.mean[rows], self.deviation[rows], self.count)


def moments(tokens: torch.Tensor, groups: int) -> Moments:
    """The moments of tokens [R,L,C] in groups of channels, in float32 or better."""
    exact = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    rows, length, channels = exact.shape
    # torch's own kernel of group norm; its output is not used. var_mean takes four times as long.
    maps = exact.unsqueeze(2).permute(0, 3, 1, 2)
    _, mean, rstd = torch.native_group_norm(maps, None, None, rows, channels, length, groups, _TINY)
    count = length * channels // groups
    return Moments(mean, (rstd**-2 - _TINY).clamp(min=0) * count, count)


def pasted(whole: Moments, old: Moments, new: Moments) -> Moments:
    """The moments of a picture in which the tokens with the moments ``old`` were replaced by ``new``."""
    rest = whole.count - old.count
    if rest == 0:
        return new
    rest_mean = (whole.count * whole.mean - old.count * old.mean) / rest
    apart = old.count * rest / whole.count * (old.mean - rest_mean) ** 2
    rest_deviation = (whole.deviation - old.deviation - apart).clamp(min=0)
    mean = (rest * rest_mean + new.count * new.mean) / whole.count
    apart = new.count * rest / whole.count * (new.mean - rest_mean) ** 2
    return Moments(mean, rest_deviation + new.deviation + apart, whole.count)


def normalise(tokens: torch.Tensor, given: Moments, norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Tokens [R,L,C], normalised with the given moments and the layer's own weights."""
    size = tokens.shape[2] // norm.num_groups
    rstd = (given.deviation / given.count + norm.eps).rsqrt()
    scale = rstd.repeat_interleave(size, 1) * norm.weight
    shift = norm.bias - given.mean.repeat_interleave(size, 1) * scale
    return torch.addcmul(shift.to(tokens.dtype)[:, None], tokens, scale.to(tokens.dtype)[:, None])
