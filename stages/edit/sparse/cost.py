"""What an edit costs in its region, as a share of what the same edit costs whole."""

from collections.abc import Callable, Iterable, Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from stages.edit.sparse.token_lists import SHARES, Size, list_lengths, needed_share


def mean_costs(
    steps: Iterable[torch.Tensor],
    sizes: Sequence[Size],
    cost_of: Callable[[float], float],
    shares: Sequence[float] = SHARES,
) -> list[float]:
    """The mean cost of each edit over the steps.

    It depends on an edit's own free tokens alone.

    Args:
        steps: free tokens of the edits by step, bool [E,h,w].
        sizes: sizes of the feature maps by level.
        cost_of: the cost of lists for a region of this share of the picture, in [0,1].
        shares: of the lists' lengths.
    """
    costs = [[cost_of(needed_share(free, sizes, shares)) for free in edits] for edits in steps]
    return [sum(of_edit) / len(costs) for of_edit in zip(*costs, strict=True)]


def cost_by_weights(weights: Sequence[int], sizes: Sequence[Size]) -> Callable[[float], float]:
    """The cost of a U-Net's lists: each token of a level is multiplied with the level's weights.

    Attention itself and layers without weights are left out: their share is the same or small
    (``docs/benchmarks.md`` compares with torch's counter).

    Args:
        weights: their number by level (:func:`weights_by_level`).
        sizes: sizes of the feature maps by level.
    """
    whole = sum(each * height * width for each, (height, width) in zip(weights, sizes, strict=True))

    def cost(share: float) -> float:
        if share in (0, 1):
            return share
        return sum(each * n for each, n in zip(weights, list_lengths(share, sizes), strict=True)) / whole

    return cost


def weights_by_level(unet: UNet2DConditionModel) -> list[int]:
    """The weights of the convolutions and linear layers that a U-Net applies to the tokens of each level.

    Layers that see the time or the text alone are left out.
    """
    last = len(unet.config.block_out_channels) - 1
    found = [0] * (last + 1)
    for name, module in unet.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not _of_time_or_text(name):
            found[_level(name.split("."), last)] += module.weight.numel()
    return found


def _level(name: Sequence[str], last: int) -> int:
    """The level of a layer's outputs; ``last`` is the coarsest."""
    if name[0] == "down_blocks":
        return int(name[1]) + ("downsamplers" in name)
    if name[0] == "up_blocks":
        return last - int(name[1]) - ("upsamplers" in name)
    return last if name[0] == "mid_block" else 0


def _of_time_or_text(name: str) -> bool:
    return "embedding" in name or name.endswith(("time_emb_proj", "attn2.to_k", "attn2.to_v"))
