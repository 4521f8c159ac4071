"""What training scenes show at each latent pixel: targets of the transformer's extra loss."""

from dataclasses import dataclass

import numpy as np
import torch

from toybox.recipes.scenes import LATENT_SIDE, Scenes
from toybox.world.scene import COLORS, KINDS, PLACES, sample_training_scene


@dataclass(frozen=True)
class Content:
    """What training scenes show.

    By latent pixel, ``kinds`` float16 [n,K+1,16,16] and ``colors`` [n,C+1,16,16] are shares that sum to 1,
    the last for no object. ``places`` and ``nights`` are int64 [n].
    """

    kinds: torch.Tensor
    colors: torch.Tensor
    places: torch.Tensor
    nights: torch.Tensor


def content_of(scenes: Scenes) -> Content:
    """The content of the scenes that :func:`toybox.recipes.scenes.encoded_scenes` encoded."""
    count = len(scenes.masks)
    shares = scenes.masks.float().div(255).cpu()
    kinds = torch.zeros(count, len(KINDS) + 1, LATENT_SIDE, LATENT_SIDE)
    colors = torch.zeros(count, len(COLORS) + 1, LATENT_SIDE, LATENT_SIDE)
    places, nights = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    for row in range(count):
        scene = sample_training_scene(np.random.default_rng([4, row]))
        places[row], nights[row] = list(PLACES).index(scene.background), scene.time == "night"
        for place, thing in enumerate(scene.things):
            kinds[row, KINDS.index(thing.kind)] += shares[row, place]
            colors[row, list(COLORS).index(thing.color)] += shares[row, place]
    for maps in (kinds, colors):
        maps.div_(maps.sum(1, keepdim=True).clamp(min=1))
        maps[:, -1] = 1 - maps[:, :-1].sum(1)
    return Content(kinds.half(), colors.half(), places, nights)
