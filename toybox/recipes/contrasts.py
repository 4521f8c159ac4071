"""Groups of scenes with one layout that differ in exactly one attribute: training data of CLIP."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
from diffusers import AutoencoderKL
from rich.progress import track

from toybox.recipes.train_autoencoder import FOLDER as AUTOENCODER
from toybox.recipes.train_autoencoder import round_trip
from toybox.recipes.training import BUILD
from toybox.world.render import render
from toybox.world.scene import (
    COLORS,
    KINDS,
    PLACES,
    SIZE,
    TEXTURE_NAMES,
    Scene,
    is_held_out,
    sample_training_scene,
    without,
)

VARIANTS = 3
"""Further scenes per group; each differs from the first in one attribute."""
ATTRIBUTES = ("color", "kind", "texture", "background", "time", "object")


def vary(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene | None:
    """The scene with one attribute changed; None if it has no object to change."""
    if attribute == "time":
        return replace(scene, time="day" if scene.time == "night" else "night")
    if attribute == "background":
        return replace(scene, background=_other(PLACES, [scene.background], rng))
    if not scene.things:
        return None
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    if attribute == "object":
        return without(scene, index)
    if attribute == "color":
        thing = replace(thing, color=_other(COLORS, [thing.color], rng))
    elif attribute == "texture":
        thing = replace(thing, texture=_other(TEXTURE_NAMES, [thing.texture], rng))
    else:
        thing = replace(thing, kind=_other(KINDS, [t.kind for t in scene.things], rng))
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _other(choices: Iterable[str], taken: Sequence[str], rng: np.random.Generator) -> str:
    return str(rng.choice([choice for choice in choices if choice not in taken]))


def training_group(index: int) -> list[Scene]:
    """A training scene and VARIANTS others that differ in one attribute each; none is held out."""
    rng = np.random.default_rng([5, index])
    scenes = [sample_training_scene(rng)]
    attributes = cycle(rng.permutation(ATTRIBUTES))
    while len(scenes) <= VARIANTS:
        variant = vary(scenes[0], str(next(attributes)), rng)
        if variant is not None and variant not in scenes and not is_held_out(variant):
            scenes.append(variant)
    return scenes


def group_pictures(groups: Sequence[list[Scene]], autoencoder: AutoencoderKL) -> np.ndarray:
    """uint8 [groups,1+VARIANTS,SIZE,SIZE,3]; every second group is passed through the autoencoder.

    Stored on disk.
    """
    weights = (AUTOENCODER / "diffusion_pytorch_model.safetensors").read_bytes()
    digest = hashlib.blake2b(weights, digest_size=4).hexdigest()
    path = BUILD / f"clip-pictures-{len(groups)}-{digest}.npy"
    if not path.exists():
        BUILD.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        shape = (len(groups), 1 + VARIANTS, SIZE, SIZE, 3)
        images = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        for index, scenes in enumerate(track(groups, "drawing groups of scenes")):
            drawn = np.stack([render(scene).image for scene in scenes])
            images[index] = round_trip(autoencoder, drawn) if index % 2 else drawn
        images.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")
