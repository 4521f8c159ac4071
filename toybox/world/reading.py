"""Reading a caption of the drawn world back into its content, and the content of a scene's caption."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toybox.world.scene import COLORS, KINDS, PLACE_NOUNS, PLACES, TEXTURE_NAMES, Scene

_THING = re.compile(rf"\ban? (?:({'|'.join(TEXTURE_NAMES)}) )?({'|'.join(COLORS)}) ({'|'.join(KINDS)})\b")


@dataclass(frozen=True)
class Look:
    """An object as described in a caption."""

    kind: str
    color: str
    texture: str


@dataclass(frozen=True)
class Content:
    """The content of a caption: objects from left to right, the place and the time."""

    things: tuple[Look, ...]
    background: str
    time: str


def read_caption(text: str) -> Content:
    """The content of a caption.

    Raises:
        ValueError: the caption names no place of the world, or contains other words.
    """
    things = tuple(Look(kind, color, texture or "plain") for texture, color, kind in _THING.findall(text))
    named = sum(len(re.findall(rf"\b{kind}\b", text)) for kind in KINDS)
    places = [name for name in PLACES if PLACES[name] in text or PLACE_NOUNS[name] in text]
    if len(places) != 1 or named != len(things):
        raise ValueError(f"not a caption of the drawn world: {text!r}")
    return Content(things, places[0], "night" if "at night" in text else "day")


def content_of(scene: Scene) -> Content:
    """The content of every caption of a scene."""
    things = tuple(Look(thing.kind, thing.color, thing.texture) for thing in scene.things)
    return Content(things, scene.background, scene.time)


def agreement(seen: Sequence[Content], true: Sequence[Content]) -> dict[str, float]:
    """Shares of pictures with correct objects, colours, place and so on, and with everything correct."""
    pairs = list(zip(seen, true, strict=True))

    def share(field) -> float:
        return float(np.mean([field(a) == field(b) for a, b in pairs]))

    return {
        "shapes": share(lambda c: [thing.kind for thing in c.things]),
        "colors": share(lambda c: [thing.color for thing in c.things]),
        "shapes_and_colors": share(lambda c: [(thing.kind, thing.color) for thing in c.things]),
        "textures": share(lambda c: [thing.texture for thing in c.things]),
        "background": share(lambda c: c.background),
        "time": share(lambda c: c.time),
        "all": share(lambda c: c),
    }
