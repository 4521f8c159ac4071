"""LocalBlend: the attention to chosen words limits where the picture may change.

See docs/prompt-to-prompt.md, section 6.

As published (Hertz et al. 2022): the controlled attention to the words is summed over steps, heads and the
layers of one resolution. It is then max-pooled, resized to the latents, divided by its maximum and compared
with a threshold. Where neither the source's nor the edit's map exceeds the threshold, the edit takes the
source's latents.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Blend:
    """LocalBlend of one edit.

    ``source_words`` and ``target_words`` [T] are 1 at the followed tokens, else 0.
    """

    source_words: torch.Tensor
    target_words: torch.Tensor
    threshold: float = 0.3


def blended_region(
    source_maps: torch.Tensor, target_maps: torch.Tensor, thresholds: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Where an edit keeps its own latents, bool [E,1,h,w].

    Args:
        source_maps, target_maps: summed attention to the followed words [E,rows,columns].
        thresholds: [E], compared with the maps after division by their maximum.
        size: height and width of the latents.
    """

    def shown(maps: torch.Tensor) -> torch.Tensor:
        pooled = F.max_pool2d(maps[:, None], 3, stride=1, padding=1)
        resized = F.interpolate(pooled, size, mode="nearest")
        return resized / resized.amax((2, 3), keepdim=True) > thresholds[:, None, None, None]

    return shown(source_maps) | shown(target_maps)
