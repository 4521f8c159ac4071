"""The drawn world: sample a scene, describe it by a caption. :mod:`toybox.world.render` draws it.

Everything is a function of a ``numpy.random.Generator`` or of the scene, so a seed gives the same picture on
every machine. A tenth of the combinations of kind, colour and background is held out and never used for
training (:func:`is_held_out`).
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from toybox.world.shapes import SHAPES, TEXTURES

SIZE = 64
"""Side of a picture in pixels."""

KINDS = list(SHAPES)
TEXTURE_NAMES = list(TEXTURES)
COLORS = {
    "red": (212, 38, 38),
    "orange": (246, 132, 20),
    "yellow": (252, 218, 40),
    "green": (30, 138, 62),
    "blue": (34, 92, 214),
    "purple": (132, 52, 172),
}
PLACES = {
    "meadow": "in a meadow",
    "beach": "on a beach",
    "snow": "in the snow",
    "desert": "in a desert",
    "room": "in a room",
}
PLACE_NOUNS = {
    "meadow": "a meadow",
    "beach": "a beach",
    "snow": "a snowy field",
    "desert": "a desert",
    "room": "a room",
}
TIMES = {"day": "", "night": "at night"}
JOINERS = ("and", "next to", "to the left of")
CAPTION_FORMS = ("plain", "picture", "place first")


@dataclass(frozen=True)
class Thing:
    """One object of a scene. Positions and radius are fractions of the picture's side."""

    kind: str
    color: str
    texture: str
    x: float
    y: float
    radius: float

    @property
    def phrase(self) -> str:
        """The object's noun phrase, such as ``a striped red car``."""
        words = [self.color, self.kind] if self.texture == "plain" else [self.texture, self.color, self.kind]
        return f"{article(words[0])} {' '.join(words)}"


@dataclass(frozen=True)
class Scene:
    """The content of a picture. ``things`` are ordered from left to right, as in captions."""

    things: tuple[Thing, ...]
    background: str
    time: str
    horizon: float
    decor_seed: int


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def sample_scene(rng: np.random.Generator, things: int | None = None) -> Scene:
    """Draw a random scene with 0, 1 or 2 objects, or with exactly ``things`` objects."""
    count = int(rng.choice([0, 1, 2], p=[0.06, 0.5, 0.44])) if things is None else things
    kinds = rng.choice(KINDS, size=count, replace=False)
    colors = rng.choice(list(COLORS), size=count, replace=bool(rng.random() < 0.15))
    placed = []
    for i in range(count):
        radius = rng.uniform(0.21, 0.31) if count == 1 else rng.uniform(0.17, 0.22)
        x = rng.uniform(0.32, 0.68) if count == 1 else (0.27, 0.73)[i] + rng.uniform(-0.04, 0.04)
        y = rng.uniform(0.34, 0.5) if kinds[i] == "star" else rng.uniform(0.57, 0.69)
        texture = str(rng.choice(TEXTURE_NAMES, p=[0.56, 0.22, 0.22]))
        placed.append(
            Thing(
                str(kinds[i]), str(colors[i]), texture, float(x), float(min(y, 0.97 - radius)), float(radius)
            )
        )
    return Scene(
        things=tuple(placed),
        background=str(rng.choice(list(PLACES))),
        time="night" if rng.random() < 0.2 else "day",
        horizon=float(rng.uniform(0.5, 0.6)),
        decor_seed=int(rng.integers(1 << 31)),
    )


def is_held_out(scene: Scene) -> bool:
    """Whether a scene is held out for evaluation: one tenth of (kind, colour, background)."""
    return any(_held_out_triple(t.kind, t.color, scene.background) for t in scene.things)


def _held_out_triple(kind: str, color: str, background: str) -> bool:
    digest = hashlib.blake2b(f"{kind}/{color}/{background}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 10 == 0


def sample_training_scene(rng: np.random.Generator, things: int | None = None) -> Scene:
    """Draw a random scene without held-out combinations."""
    while is_held_out(scene := sample_scene(rng, things)):
        pass
    return scene


def sample_held_out_scene(rng: np.random.Generator, things: int | None = None) -> Scene:
    """Draw a random scene with at least one held-out combination."""
    while not is_held_out(scene := sample_scene(rng, things)):
        pass
    return scene


def caption(scene: Scene, form: str = "plain", joiner: str = "and") -> str:
    """Describe a scene. ``form`` is one of CAPTION_FORMS, ``joiner`` one of JOINERS."""
    things = f" {joiner} ".join(t.phrase for t in scene.things)
    time = TIMES[scene.time]
    if not things or form == "place first":
        words = [PLACE_NOUNS[scene.background], time, f"with {things}" if things else ""]
    else:
        words = [things, PLACES[scene.background], time]
    text = " ".join(word for word in words if word)
    return f"a picture of {text}" if form == "picture" else text


def sample_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene in a random form."""
    form = str(rng.choice(CAPTION_FORMS, p=[0.5, 0.2, 0.3]))
    return caption(scene, form, str(rng.choice(JOINERS, p=[0.6, 0.2, 0.2])))


def vocabulary() -> list[str]:
    """Every word that a caption of the world can contain, sorted."""
    fixed = " ".join([*PLACES.values(), *PLACE_NOUNS.values(), *TIMES.values(), *JOINERS])
    names = " ".join([*KINDS, *COLORS, *TEXTURE_NAMES, "a an the picture of with"])
    return sorted(set(f"{fixed} {names}".split()))


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box (x0, y0, x1, y1), in pixels with exclusive ends, of a mask's pixels above one half."""
    ys, xs = np.where(mask > 0.5)
    if not len(xs):
        raise ValueError("the mask is empty")
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def without(scene: Scene, index: int) -> Scene:
    """The scene without one object."""
    return replace(scene, things=scene.things[:index] + scene.things[index + 1 :])
