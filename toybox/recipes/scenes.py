"""Training scenes as the U-Net sees them: latents, captions, and the position of each object's words."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from rich.progress import track

from toybox.recipes.train_autoencoder import to_tensor
from toybox.recipes.training import BUILD, DEVICE
from toybox.world.render import render
from toybox.world.scene import Scene, sample_caption, sample_training_scene

LATENT_SIDE = 16
MAX_THINGS = 2
MAX_PHRASE = 3
"""Most words in an object's phrase: texture, colour, kind."""


@dataclass(frozen=True)
class Scenes:
    """Encoded scenes.

    ``latents`` float16 [n,4,16,16]; ``masks`` uint8 [n,2,16,16], the objects' shapes in 0..255;
    ``captions`` [n][CAPTIONS]; ``words`` int8 [n,CAPTIONS,2,3], the positions (in words) of each
    object's phrase in each caption, -1 for none.
    """

    latents: torch.Tensor
    masks: torch.Tensor
    captions: list[list[str]]
    words: torch.Tensor


def phrase_positions(scene: Scene, text: str) -> np.ndarray:
    """Positions [2,3] of the words of each object's phrase in a caption, -1 for none."""
    positions = np.full((MAX_THINGS, MAX_PHRASE), -1, np.int8)
    words = text.split()
    for index, thing in enumerate(scene.things):
        last = words.index(thing.kind)
        count = len(thing.phrase.split()) - 1
        positions[index, :count] = np.arange(last - count + 1, last + 1)
    return positions


@torch.no_grad()
def encoded_scenes(autoencoder: AutoencoderKL, count: int, captions: int = 4) -> Scenes:
    """Render and encode ``count`` training scenes, or read them from ``toybox/build``."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / f"scenes-{count}.pt"
    if path.exists():
        return Scenes(**torch.load(path, weights_only=True))
    latents, masks, texts, words = [], [], [], []
    for start in track(range(0, count, 64), "encoding scenes"):
        images = []
        for i in range(start, min(start + 64, count)):
            rng = np.random.default_rng([4, i])
            scene = sample_training_scene(rng)
            picture = render(scene)
            images.append(picture.image)
            masks.append(_small_masks(picture.masks))
            texts.append([sample_caption(scene, rng) for _ in range(captions)])
            words.append(np.stack([phrase_positions(scene, text) for text in texts[-1]]))
        encoded = autoencoder.encode(to_tensor(np.stack(images)).to(autoencoder.dtype))
        latents.append(encoded.latent_dist.mean.half().cpu())
    scenes = Scenes(
        torch.cat(latents).to(DEVICE),
        torch.from_numpy(np.stack(masks)).to(DEVICE),
        texts,
        torch.from_numpy(np.stack(words)).to(DEVICE),
    )
    torch.save(vars(scenes), path)
    return scenes


def _small_masks(masks: np.ndarray) -> np.ndarray:
    small = np.zeros((MAX_THINGS, LATENT_SIDE, LATENT_SIDE), np.uint8)
    for index, mask in enumerate(masks):
        resized = cv2.resize(mask, (LATENT_SIDE, LATENT_SIDE), interpolation=cv2.INTER_AREA)
        small[index] = np.round(resized * 255)
    return small
