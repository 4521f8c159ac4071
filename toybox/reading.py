"""What a caption of the drawn world says, read back word by word; and what a scene's caption says."""

import re
from dataclasses import dataclass

from toybox.world import COLORS, KINDS, PLACE_NOUNS, PLACES, TEXTURE_NAMES, Scene

_THING = re.compile(rf"\ban? (?:({'|'.join(TEXTURE_NAMES)}) )?({'|'.join(COLORS)}) ({'|'.join(KINDS)})\b")


@dataclass(frozen=True)
class Look:
    """An object as captions tell it."""

    kind: str
    color: str
    texture: str


@dataclass(frozen=True)
class Content:
    """What a caption can say of a picture: its objects from left to right, the place and the time."""

    things: tuple[Look, ...]
    background: str
    time: str


def read_caption(text: str) -> Content:
    """The content of a caption.

    Raises:
        ValueError: it names no place of the world, or something besides the world's objects.
    """
    things = tuple(Look(kind, color, texture or "plain") for texture, color, kind in _THING.findall(text))
    named = sum(len(re.findall(rf"\b{kind}\b", text)) for kind in KINDS)
    places = [name for name in PLACES if PLACES[name] in text or PLACE_NOUNS[name] in text]
    if len(places) != 1 or named != len(things):
        raise ValueError(f"not a caption of the drawn world: {text!r}")
    return Content(things, places[0], "night" if "at night" in text else "day")


def content_of(scene: Scene) -> Content:
    """What every caption of a scene says."""
    things = tuple(Look(thing.kind, thing.color, thing.texture) for thing in scene.things)
    return Content(things, scene.background, scene.time)
