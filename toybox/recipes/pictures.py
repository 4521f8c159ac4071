"""The training pictures: rendered once, stored as arrays below ``toybox/build``."""

import json
from dataclasses import dataclass

import numpy as np
from rich.progress import track

from toybox.recipes.training import BUILD
from toybox.world.render import render
from toybox.world.scene import SIZE, sample_caption, sample_training_scene

COUNT = 20_000
CAPTIONS_A_PICTURE = 4


@dataclass(frozen=True)
class Pictures:
    """``images`` uint8 [n,SIZE,SIZE,3], memory-mapped; ``captions`` of the same rows."""

    images: np.ndarray
    captions: list[list[str]]


def training_pictures(count: int = COUNT) -> Pictures:
    """Render the pictures, or memory-map them if they were rendered before."""
    BUILD.mkdir(exist_ok=True)
    images_path, captions_path = BUILD / f"pictures-{count}.npy", BUILD / f"captions-{count}.json"
    if not captions_path.exists():
        images = np.lib.format.open_memmap(images_path, "w+", np.uint8, (count, SIZE, SIZE, 3))
        captions = []
        for i in track(range(count), "drawing pictures"):
            rng = np.random.default_rng([2, i])
            scene = sample_training_scene(rng)
            images[i] = render(scene).image
            captions.append([sample_caption(scene, rng) for _ in range(CAPTIONS_A_PICTURE)])
        images.flush()
        captions_path.write_text(json.dumps(captions))
    return Pictures(np.load(images_path, mmap_mode="r"), json.loads(captions_path.read_text()))
