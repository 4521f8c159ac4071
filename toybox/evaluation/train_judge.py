"""Train the judge on renders, and on renders passed through the autoencoder.

Pictures are mirrored, shifted and degraded, because generated pictures are rougher than renders. Masks and
attributes come from the renderer only.
"""

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor
from torch.nn import functional as F

from toybox.evaluation.judge import FILE, Judge, JudgeNetwork
from toybox.recipes.labelled import Labelled, degraded, held_out_pictures, training_pictures
from toybox.recipes.training import DEVICE, Schedule, Training, half
from toybox.world.reading import agreement, content_of
from toybox.world.scene import COLORS, KINDS, PLACES, SIZE, TEXTURE_NAMES, TIMES, Scene

BATCH = 32
SHIFT = SIZE // 8
"""Largest shift of a picture in pixels. It makes the judge recognise an object at any position."""
SCHEDULE = Schedule(steps=1_500, learning_rate=3e-3, warmup=50, plateau=0.3, average=0.99)
NOTHING = -100
"""Class of pixels without a label: cross_entropy's default ignore_index."""


def labels_of(scene: Scene, masks: np.ndarray) -> np.ndarray:
    """Classes [3,h,w] of kind (0: no object), colour and texture, from masks uint8 [n,h,w]."""
    labels = np.full((3, *masks.shape[1:]), NOTHING, np.int64)
    labels[0] = 0
    for thing, mask in zip(scene.things, masks, strict=False):
        classes = (
            1 + KINDS.index(thing.kind),
            list(COLORS).index(thing.color),
            TEXTURE_NAMES.index(thing.texture),
        )
        labels[:, mask > 127] = np.array(classes)[:, None]
    return labels


def moved(arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Arrays [...,h,w], possibly mirrored, and all shifted by the same few pixels; edges are repeated."""
    y, x = rng.integers(0, 2 * SHIFT + 1, 2)
    mirrored = rng.random() < 0.5
    result = []
    for array in arrays:
        widths = [(0, 0)] * (array.ndim - 2) + [(SHIFT, SHIFT)] * 2
        cut = np.pad(array, widths, "edge")[..., y : y + SIZE, x : x + SIZE]
        result.append(cut[..., ::-1] if mirrored else cut)
    return result


def sample_batch(pictures: Labelled, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images [b,3,h,w] in [-1,1], pixel classes [b,3,h,w] and (place, time) classes [b,2]."""
    images, labels, scenes = [], [], []
    for index in rng.integers(0, len(pictures.scenes), BATCH):
        scene = pictures.scenes[index]
        image = degraded(pictures.images[index], rng).transpose(2, 0, 1)
        image, classes = moved([image, labels_of(scene, pictures.masks[index])], rng)
        images.append(image)
        labels.append(classes)
        scenes.append((list(PLACES).index(scene.background), list(TIMES).index(scene.time)))
    pixels = torch.from_numpy(np.stack(images)).to(DEVICE).float() / 127.5 - 1
    return pixels, torch.from_numpy(np.stack(labels)).to(DEVICE), torch.tensor(scenes, device=DEVICE)


def loss_of_batch(network: JudgeNetwork, images: Tensor, labels: Tensor, scenes: Tensor) -> dict[str, Tensor]:
    logits = network(images)
    # Most pixels show no object. Without a separate loss term, the kinds of objects are learned late.
    inside = torch.where(labels[:, 0] > 0, labels[:, 0], NOTHING)
    targets = [(logits.kind, labels[:, 0]), (logits.kind, inside)]
    targets += [(logits.color, labels[:, 1]), (logits.texture, labels[:, 2])]
    pixel = sum(F.cross_entropy(part, target) for part, target in targets)
    picture = F.cross_entropy(logits.place, scenes[:, 0]) + F.cross_entropy(logits.time, scenes[:, 1])
    return {"loss": pixel + picture, "picture": picture}


def evaluate(network: JudgeNetwork, pictures: Labelled) -> dict[str, float]:
    """Shares of held-out pictures that are read correctly (``toybox.world.reading.agreement``)."""
    seen = [look.content for look in Judge(network).look(list(pictures.images))]
    return agreement(seen, [content_of(scene) for scene in pictures.scenes])


def main() -> None:
    pictures, unseen = training_pictures(), held_out_pictures()
    torch.manual_seed(0)
    network = JudgeNetwork().to(DEVICE)
    training = Training("judge", network, SCHEDULE, lambda: evaluate(network, unseen), 300)
    training.run(lambda _, rng: loss_of_batch(network, *sample_batch(pictures, rng)))
    with training.averaged_weights():
        FILE.parent.mkdir(parents=True, exist_ok=True)
        save_model(half(network), str(FILE))


if __name__ == "__main__":
    main()
