"""The judge: an independent reader of pictures, used only for evaluation.

It finds the objects in a picture with their boxes, colours and textures, and the place and time. No stage,
filter or other recipe uses it. Success is therefore never measured by the model that filtered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn import functional as F

from toybox.recipes.training import DEVICE, WEIGHTS
from toybox.world.reading import Content, Look
from toybox.world.scene import COLORS, KINDS, PLACES, TEXTURE_NAMES, TIMES

FILE = WEIGHTS / "judge" / "model.safetensors"
WIDTHS = (16, 32, 64, 96)
MIN_AREA = 0.01
"""Smallest object, as a fraction of the picture's area."""
MIN_SHARE = 0.25
"""Smallest share of a region for a kind. A smaller share is a misread part of another object."""

_COLORS, _PLACES, _TIMES = list(COLORS), list(PLACES), list(TIMES)


@dataclass(frozen=True)
class SeenThing:
    """An object found by the judge, with its box (x0, y0, x1, y1) in pixels."""

    look: Look
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Seen:
    """Everything the judge finds in a picture; ``things`` from left to right."""

    things: tuple[SeenThing, ...]
    background: str
    time: str

    @property
    def content(self) -> Content:
        return Content(tuple(thing.look for thing in self.things), self.background, self.time)


@dataclass(frozen=True)
class Logits:
    """``kind`` (0: no object), ``color``, ``texture``: [b,c,h,w]. ``place``, ``time``: [b,c]."""

    kind: Tensor
    color: Tensor
    texture: Tensor
    place: Tensor
    time: Tensor


class JudgeNetwork(nn.Module):
    """A small U-Net with three outputs per pixel and two per picture."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        previous = 3
        for width in WIDTHS:
            self.down.append(_block(previous, width))
            previous = width
        self.up = nn.ModuleList(
            _block(deep + shallow, shallow)
            for shallow, deep in zip(WIDTHS[-2::-1], WIDTHS[:0:-1], strict=True)
        )
        self.sizes = (1 + len(KINDS), len(_COLORS), len(TEXTURE_NAMES))
        self.pixel_head = nn.Conv2d(WIDTHS[0], sum(self.sizes), 1)
        self.picture_head = nn.Linear(WIDTHS[-1], len(_PLACES) + len(_TIMES))

    def forward(self, images: Tensor) -> Logits:
        """``images`` [b,3,h,w] in [-1,1]."""
        features = images
        skipped = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else F.max_pool2d(features, 2))
            skipped.append(features)
        place, time = self.picture_head(features.mean((2, 3))).split([len(_PLACES), len(_TIMES)], 1)
        for block, skip in zip(self.up, skipped[-2::-1], strict=True):
            features = block(torch.cat([F.interpolate(features, scale_factor=2.0), skip], 1))
        kind, color, texture = self.pixel_head(features).split(self.sizes, 1)
        return Logits(kind, color, texture, place, time)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.SiLU()]
    return nn.Sequential(*layers)


class Judge:
    """Reads pictures with the trained network."""

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, file: Path = FILE) -> "Judge":
        network = JudgeNetwork()
        load_model(network, file)
        return cls(network.to(DEVICE))

    @torch.no_grad()
    def look(self, images: Sequence[np.ndarray], batch: int = 64) -> list[Seen]:
        """Read pictures (uint8 RGB [h,w,3])."""
        seen = []
        for start in range(0, len(images), batch):
            stacked = np.stack(images[start : start + batch]).transpose(0, 3, 1, 2)
            pixels = torch.from_numpy(np.ascontiguousarray(stacked)).to(DEVICE).float() / 127.5 - 1
            seen += _read(self.network(pixels))
        return seen


def _read(logits: Logits) -> list[Seen]:
    kinds = logits.kind.argmax(1).cpu().numpy()
    colors, textures = (x.log_softmax(1).cpu().numpy() for x in (logits.color, logits.texture))
    places, times = (x.argmax(1).tolist() for x in (logits.place, logits.time))
    return [
        Seen(_things(kind, color, texture), _PLACES[place], _TIMES[time])
        for kind, color, texture, place, time in zip(kinds, colors, textures, places, times, strict=True)
    ]


def _things(kind: np.ndarray, color: np.ndarray, texture: np.ndarray) -> tuple[SeenThing, ...]:
    """The objects of one picture: connected regions, split by kind if two kinds each fill enough of one."""
    count, regions = cv2.connectedComponents((kind > 0).astype(np.uint8), connectivity=4)
    found = []
    for region in (regions == label for label in range(1, count)):
        area = region.sum()
        if area < MIN_AREA * kind.size:
            continue
        for index, name in enumerate(KINDS, start=1):
            pixels = region & (kind == index)
            if pixels.sum() < MIN_SHARE * area:
                continue
            look = Look(
                name,
                _COLORS[int(color[:, pixels].sum(1).argmax())],
                TEXTURE_NAMES[int(texture[:, pixels].sum(1).argmax())],
            )
            x, y, width, height = cv2.boundingRect(pixels.astype(np.uint8))
            found.append(SeenThing(look, (x, y, x + width, y + height)))
    return tuple(sorted(found, key=lambda thing: thing.box[0] + thing.box[2]))
