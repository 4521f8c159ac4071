"""Pictures with labels, for the recipes of detector, segmenter and judge.

These models will see generated pictures. Therefore every second picture is passed through the autoencoder,
some of these also through the diffusion model (:func:`redrawn`), and :func:`degraded` adds a little blur,
tint and noise.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from rich.progress import track

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from toybox.recipes.train_autoencoder import load_autoencoder, round_trip, to_tensor
from toybox.recipes.training import BUILD, WEIGHTS
from toybox.world.render import render
from toybox.world.scene import SIZE, Scene, caption, sample_held_out_scene, sample_training_scene

MAX_THINGS = 2
TRAINING, HELD_OUT = 10_000, 192
REDRAWN_EVERY = 8
REDRAWN_STEPS = (6, 12)
"""Fewest and most of the DRAWN_STEPS that a redrawn picture goes through."""
DRAWN_STEPS = 20


@dataclass(frozen=True)
class Labelled:
    """``images`` uint8 [n,SIZE,SIZE,3]; ``masks`` uint8 [n,2,SIZE,SIZE], the visible part of each object."""

    images: np.ndarray
    masks: np.ndarray
    scenes: list[Scene]


def training_pictures() -> Labelled:
    """Training scenes, drawn once and stored below ``toybox/build``."""
    scenes = [sample_training_scene(np.random.default_rng([5, i])) for i in range(TRAINING)]
    path = BUILD / f"labelled-{TRAINING}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        images, masks = _draw(scenes)
        np.savez(path.with_suffix(".tmp.npz"), images=images, masks=masks)
        path.with_suffix(".tmp.npz").replace(path)
    arrays = np.load(path)
    return Labelled(arrays["images"], arrays["masks"], scenes)


def held_out_pictures() -> Labelled:
    """Scenes of held-out combinations with at least one object, for evaluation."""
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
    diffusion = Diffusion(DiffusionConfig(model=str(WEIGHTS / "diffusion"), steps=DRAWN_STEPS))
    for start in track(
        range(REDRAWN_EVERY - 1, len(scenes), 24 * REDRAWN_EVERY), "through the diffusion model"
    ):
        chosen = slice(start, start + 24 * REDRAWN_EVERY, REDRAWN_EVERY)
        rng = np.random.default_rng([10, start])
        steps = int(rng.integers(REDRAWN_STEPS[0], REDRAWN_STEPS[1] + 1))
        images[chosen] = redrawn(diffusion, images[chosen], [caption(s) for s in scenes[chosen]], steps)
    return images, masks


@torch.no_grad()
def redrawn(diffusion: Diffusion, images: np.ndarray, captions: list[str], steps: int) -> np.ndarray:
    """Add noise to pictures, uint8 [n,h,w,3], and denoise them with the last ``steps`` of the sampler.

    The results look generated, and every object keeps its place (Meng et al. 2022, SDEdit).
    """
    latents = diffusion.decoder.vae.encode(to_tensor(images)).latent_dist.mean
    diffusion.scheduler.set_timesteps(diffusion.config.steps)
    timesteps = diffusion.scheduler.timesteps[-steps:]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(steps)).to(latents)
    latents = diffusion.scheduler.add_noise(latents, noise, timesteps[:1].expand(len(latents)))
    states = diffusion.prompts.encode(captions).states
    for t in timesteps:
        predicted = diffusion.unet(latents, t, states).sample
        latents = diffusion.scheduler.step(predicted, t, latents).prev_sample
    return diffusion.decode(latents)[0]


def degraded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture, uint8 [h,w,3], with a little blur, tint and noise, as in generated pictures."""
    sigma = rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma) if sigma else image
    tint, noise = rng.uniform(0.94, 1.06, 3), rng.uniform(0, 6) * rng.standard_normal(image.shape)
    return np.clip(np.round(blurred * tint + noise), 0, 255).astype(np.uint8)
