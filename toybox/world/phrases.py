"""Noun phrases that fit or do not fit a scene, in the wordings of instructions."""

import numpy as np

from toybox.world.scene import COLORS, KINDS, TEXTURE_NAMES, Scene, Thing, article


def present_phrase(thing: Thing, rng: np.random.Generator) -> str:
    """A phrase that fits an object: ``the car``, ``a red car``, ``striped red car`` ..."""
    wording = rng.random()
    if wording < 0.25:
        return _with_article([thing.kind], rng)
    if wording < 0.65:
        return _with_article([thing.color, thing.kind], rng)
    return _with_article(_with_texture(thing.texture, thing.color, thing.kind, rng), rng)


def absent_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """A phrase that fits no object of the scene: another kind, or a wrong attribute."""
    wrong = rng.random()
    if not scene.things or wrong < 0.4:
        return _absent_kind(scene, rng)
    if wrong < 0.75:
        return recolored_phrase(scene, rng)
    return retextured_phrase(scene, rng)


def recolored_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """An object of the scene with a wrong colour, often the other object's colour."""
    thing = scene.things[rng.integers(len(scene.things))]
    color = str(rng.choice([c for c in COLORS if c != thing.color]))
    others = [t.color for t in scene.things if t.color != thing.color]
    if others and rng.random() < 0.5:
        color = others[0]
    said = [thing.texture] if rng.random() < 0.3 else []
    return _with_article([*said, color, thing.kind], rng)


def retextured_phrase(scene: Scene, rng: np.random.Generator) -> str:
    """An object of the scene with a wrong texture."""
    thing = scene.things[rng.integers(len(scene.things))]
    texture = str(rng.choice([t for t in TEXTURE_NAMES if t != thing.texture]))
    named = [thing.color] if rng.random() < 0.8 else []
    return _with_article([texture, *named, thing.kind], rng)


def _absent_kind(scene: Scene, rng: np.random.Generator) -> str:
    kind = str(rng.choice([k for k in KINDS if k not in [t.kind for t in scene.things]]))
    colors = [t.color for t in scene.things] + [str(rng.choice(list(COLORS)))]
    color, wording = str(rng.choice(colors)), rng.random()
    if wording < 0.25:
        return _with_article([kind], rng)
    if wording < 0.65:
        return _with_article([color, kind], rng)
    return _with_article(_with_texture(str(rng.choice(TEXTURE_NAMES)), color, kind, rng), rng)


def _with_texture(texture: str, color: str, kind: str, rng: np.random.Generator) -> list[str]:
    if texture == "plain" and rng.random() < 0.7:
        return [color, kind]
    return [texture, color, kind] if rng.random() < 0.85 else [texture, kind]


def _with_article(words: list[str], rng: np.random.Generator) -> str:
    chosen = rng.choice(["indefinite", "the", "none"], p=[0.5, 0.3, 0.2])
    first = {"indefinite": [article(words[0])], "the": ["the"], "none": []}[str(chosen)]
    return " ".join([*first, *words])
