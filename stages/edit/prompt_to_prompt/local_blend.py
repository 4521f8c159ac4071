"""LocalBlend: the words' own attention says where the picture may change.

As published (Hertz et al. 2022): the attention of chosen words, after its control and summed over
steps, heads and layers of one resolution, is max-pooled, brought to the latents' size, divided by
its maximum and cut at a threshold. Where neither the source's nor the edit's map passes, the edit
takes the source's latents.

No map is stored for it: the words' indicator rides along as one more column of the values.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Blend:
    """LocalBlend of one edit.

    ``source_words`` and ``target_words`` are 1 at the tokens [T] that are followed, else 0.
    """

    source_words: torch.Tensor
    target_words: torch.Tensor
    threshold: float = 0.3


def blended_region(
    source_maps: torch.Tensor, target_maps: torch.Tensor, thresholds: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Where an edit is kept, bool [E,1,h,w].

    Args:
        source_maps, target_maps: the words' summed attention [E,rows,columns].
        thresholds: [E].
        size: of the latents.
    """

    def shown(maps: torch.Tensor) -> torch.Tensor:
        pooled = F.max_pool2d(maps[:, None], 3, stride=1, padding=1)
        resized = F.interpolate(pooled, size, mode="nearest")
        return resized / resized.amax((2, 3), keepdim=True) > thresholds[:, None, None, None]

    return shown(source_maps) | shown(target_maps)
