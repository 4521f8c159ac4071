"""Marks of an edit by what the independent judge reads in its pictures, for a judge behind an endpoint.

A picture's content becomes facts: every object, the place, the time. The captions say which facts an edit
brings, which it takes away and which stay; the pictures say which facts are there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages.pictures.fidelity import as_float, contrast, roughness
from stages.tasks import load_tasks
from toybox.evaluation.judge import Judge
from toybox.world.answers import Description, answers
from toybox.world.reading import Content, read_caption
from toybox.world.scene import CAPTION_FORMS, JOINERS, Scene, Thing

PROMPTS = Path(__file__).parents[2] / "prompts"
Facts = Counter[str]


@dataclass(frozen=True)
class Seen:
    """What the judge reads in both pictures."""

    before: Content
    after: Content
    flawless: bool
    """Whether the second picture is neither flat nor noise."""
    changed: bool
    """Whether the pictures differ at all."""


def look(judge: Judge, first: np.ndarray, second: np.ndarray) -> Seen:
    """Read two pictures, uint8 [h,w,3]."""
    before, after = judge.look([first, second])
    picture = as_float(second)
    flawless = contrast(picture) >= 0.03 and roughness(picture) <= 0.8
    return Seen(before.content, after.content, flawless, bool((first != second).any()))


def marks(seen: Seen, texts: Mapping[str, str]) -> dict[str, int | str]:
    """The marks of an edit, and the differences between its pictures in words.

    Args:
        texts: ``caption_of_image_1`` and ``caption_of_image_2``.
    """
    asked = [_content(texts[f"caption_of_image_{n}"]) for n in (1, 2)]
    textures = {thing.texture for content in asked for thing in content.things} - {"plain"}
    old, new = (_facts(content, bool(textures)) for content in asked)
    before, after = (_facts(content, bool(textures)) for content in (seen.before, seen.after))
    bring, take = new - old, old - new
    wanted = bring.total() + take.total()
    done = (bring & after).total() + (take - (after - new)).total()
    stay = before - take
    lost, missing = (stay - after).total(), (bring - after).total()
    uninvited = (after - before - bring).total() - missing  # another new object stands for the one asked
    follows = (1 + 4 * done // wanted) if wanted else (5 if seen.changed else 1)
    return {
        "reason": ", ".join(_words(before, after)) or "both images show the same",
        "instruction_following": follows,
        "consistency": max(1, 5 - 2 * max(lost, uninvited)),
        "quality": 5 if seen.flawless else 1,
    }


def other_caption(seen: Seen, texts: Mapping[str, str]) -> dict[str, str]:
    """The instruction that leads from the first picture to the second, and the second's caption.

    Both are empty if the world has no such edit of the kind ``kind_of_edit``.
    """
    kind, first = texts["kind_of_edit"], texts["caption_of_image_1"]
    things = tuple(Thing(t.kind, t.color, t.texture, 0.5, 0.6, 0.2) for t in seen.before.things)
    scene = Scene(things, seen.before.background, seen.before.time, 0.5, 0)
    described = (Description(form, joiner) for form in CAPTION_FORMS for joiner in JOINERS)
    description = next((d for d in described if d.of(scene) == first), Description("plain", "and"))
    for verb in load_tasks(PROMPTS, names=[kind])[kind].verbs:
        for answer in answers(scene, description, kind, verb):
            if read_caption(answer.output_caption) == seen.after:
                return {"instruction": answer.edit, "output_caption": answer.output_caption}
    return {"instruction": "", "output_caption": ""}


def _content(text: str) -> Content:
    try:
        return read_caption(text)
    except ValueError:
        return Content((), "", "")


def _facts(content: Content, textures: bool) -> Facts:
    things = content.things if textures else tuple(replace(t, texture="plain") for t in content.things)
    objects = [Thing(t.kind, t.color, t.texture, 0, 0, 0).phrase for t in things]
    return Counter([*objects, f"place: {content.background}", f"time: {content.time}"])


def _words(before: Facts, after: Facts) -> Iterator[str]:
    yield from (f"{fact} is gone" for fact in (before - after).elements())
    yield from (f"{fact} is new" for fact in (after - before).elements())
