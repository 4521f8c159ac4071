"""Pictures with their truth for the recipes that look at pictures: detector and segmenter.

Both will judge generated pictures, so every second one has been through the autoencoder, and
:func:`degraded` blurs, tints and roughens them a little.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from rich.progress import track

from toybox.train_autoencoder import load_autoencoder, round_trip
from toybox.training import BUILD
from toybox.world import SIZE, Scene, render, sample_held_out_scene, sample_training_scene

MAX_THINGS = 2
TRAINING, HELD_OUT = 12_000, 192


@dataclass(frozen=True)
class Labelled:
    """``images`` uint8 [n,SIZE,SIZE,3]; ``masks`` uint8 [n,2,SIZE,SIZE], the visible part of each thing."""

    images: np.ndarray
    masks: np.ndarray
    scenes: list[Scene]


def training_pictures() -> Labelled:
    """Training scenes, drawn once and kept below ``toybox/build``."""
    scenes = [sample_training_scene(np.random.default_rng([5, i])) for i in range(TRAINING)]
    path = BUILD / f"labelled-{TRAINING}.npz"
    if not path.exists():
        images, masks = _draw(scenes)
        np.savez(path.with_suffix(".tmp.npz"), images=images, masks=masks)
        path.with_suffix(".tmp.npz").replace(path)
    arrays = np.load(path)
    return Labelled(arrays["images"], arrays["masks"], scenes)


def held_out_pictures() -> Labelled:
    """Scenes of held-out combinations with at least one thing, for evaluation."""
    rng = np.random.default_rng(6)
    scenes = [sample_held_out_scene(rng) for _ in range(HELD_OUT)]
    return Labelled(*_draw(scenes), scenes)


def _draw(scenes: list[Scene]) -> tuple[np.ndarray, np.ndarray]:
    autoencoder = load_autoencoder()
    images = np.empty((len(scenes), SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((len(scenes), MAX_THINGS, SIZE, SIZE), np.uint8)
    for i, scene in enumerate(track(scenes, "drawing labelled pictures")):
        picture = render(scene)
        images[i] = picture.image
        masks[i, : len(scene.things)] = np.round(picture.masks * 255)
    for start in track(range(1, len(scenes), 64), "through the autoencoder"):
        chosen = slice(start, start + 64, 2)
        images[chosen] = round_trip(autoencoder, images[chosen])
    return images, masks


def degraded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [h,w,3] blurred, tinted and roughened a little, as generated pictures are."""
    sigma = rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma) if sigma else image
    tint, noise = rng.uniform(0.94, 1.06, 3), rng.uniform(0, 6) * rng.standard_normal(image.shape)
    return np.clip(np.round(blurred * tint + noise), 0, 255).astype(np.uint8)
