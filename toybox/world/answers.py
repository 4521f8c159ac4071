"""Every valid answer to a caption of the drawn world: the training targets of the language model.

For each task, :func:`changes` lists the possible changes of a scene. :func:`answers` words a change with the
verbs of ``prompts/<task>.yaml``. Output captions keep the form and joiner of the input caption.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from stages.edit.annotations.adjust import STRENGTHS
from stages.tasks import Exemplar
from toybox.world.scene import (
    CAPTION_FORMS,
    COLORS,
    JOINERS,
    KINDS,
    PLACE_NOUNS,
    PLACES,
    TEXTURE_NAMES,
    TIMES,
    Scene,
    Thing,
    caption,
    without,
)
from toybox.world.wordings import wordings

_COVERS = {"plain": "plain paint", "striped": "stripes", "dotted": "dots"}
_AT_TIME = {"day": "by day", "night": "at night"}


@dataclass(frozen=True)
class Description:
    """The form of a scene's caption: one of CAPTION_FORMS and one of JOINERS."""

    form: str
    joiner: str

    def of(self, scene: Scene) -> str:
        return caption(scene, self.form, self.joiner)


@dataclass(frozen=True)
class Change:
    """One edit of a scene: the scene after the edit, the phrases it concerns, and words for the templates."""

    after: Scene
    description: Description
    original_object: str
    edited_object: str
    words: Mapping[str, tuple[str, ...]]
    surroundings: str = ""

    @property
    def output_caption(self) -> str:
        return self.description.of(self.after)


def sample_description(rng: np.random.Generator) -> Description:
    return Description(str(rng.choice(CAPTION_FORMS)), str(rng.choice(JOINERS)))


def changes(scene: Scene, description: Description, task: str) -> list[Change]:
    """The possible changes of a scene by ``task``; empty if there are none (removal from an empty scene)."""
    return list(_CHANGES[task](scene, description))


def answers(scene: Scene, description: Description, task: str, verb: str) -> list[Exemplar]:
    """Every valid answer with the given verb."""
    return [
        _exemplar(scene, description, change, edit)
        for change in changes(scene, description, task)
        for edit in wordings(task, verb, change.words)
    ]


def sample_answer(
    scene: Scene, description: Description, task: str, verb: str, rng: np.random.Generator
) -> Exemplar | None:
    """One of :func:`answers`, drawn by change and then by wording; None if there is none."""
    possible = changes(scene, description, task)
    if not possible:
        return None
    change = possible[rng.integers(len(possible))]
    texts = wordings(task, verb, change.words)
    return _exemplar(scene, description, change, texts[rng.integers(len(texts))])


def _exemplar(scene: Scene, description: Description, change: Change, edit: str) -> Exemplar:
    return Exemplar(
        caption=description.of(scene),
        edit=edit,
        edited_object=change.edited_object,
        output_caption=change.output_caption,
        original_object=change.original_object,
        surroundings=change.surroundings,
    )


def _references(thing: Thing) -> tuple[str, ...]:
    """The phrases by which an instruction can name an existing object."""
    words = thing.phrase.split(" ", 1)[1]
    return (f"the {words}", f"the {thing.kind}")


def _with(scene: Scene, index: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def _recast(
    scene: Scene, description: Description, alternatives: Callable[[Thing], list[Thing]]
) -> Iterator[Change]:
    """Replace one object by each of its alternatives."""
    for index, thing in enumerate(scene.things):
        for after in alternatives(thing):
            if after != thing:
                yield Change(
                    after=_with(scene, index, after),
                    description=description,
                    original_object=thing.phrase,
                    edited_object=after.phrase,
                    words={
                        "the": _references(thing),
                        "new": (after.phrase,),
                        "color": (after.color,),
                        "texture": (after.texture,),
                        "cover": (_COVERS[after.texture],),
                    },
                )


def _local(scene: Scene, description: Description) -> Iterator[Change]:
    absent = [kind for kind in KINDS if kind not in {thing.kind for thing in scene.things}]
    return _recast(scene, description, lambda thing: [replace(thing, kind=kind) for kind in absent])


def _color(scene: Scene, description: Description) -> Iterator[Change]:
    return _recast(scene, description, lambda thing: [replace(thing, color=color) for color in COLORS])


def _texture(scene: Scene, description: Description) -> Iterator[Change]:
    return _recast(scene, description, lambda thing: [replace(thing, texture=name) for name in TEXTURE_NAMES])


def _remove(scene: Scene, description: Description) -> Iterator[Change]:
    for index, thing in enumerate(scene.things):
        words = {"the": _references(thing)}
        after = without(scene, index)
        yield Change(after, description, thing.phrase, thing.phrase, words, _surroundings(scene))


def _add(scene: Scene, description: Description) -> Iterator[Change]:
    if len(scene.things) == 2:
        return
    if not scene.things and description.form == "plain":
        description = replace(description, form="place first")
    joiners = JOINERS if scene.things else JOINERS[:1]
    for kind in KINDS:
        if kind in [thing.kind for thing in scene.things]:
            continue
        for color in COLORS:
            for texture in TEXTURE_NAMES:
                new = Thing(kind, color, texture, 0.5, 0.6, 0.2)
                for things, where in _placements(scene, new):
                    after = replace(scene, things=things)
                    words = {"new": (new.phrase,), "where": where}
                    for joiner in joiners:
                        described = Description(description.form, joiner)
                        yield Change(after, described, "", new.phrase, words, _surroundings(scene))


def _surroundings(scene: Scene) -> str:
    return caption(replace(scene, things=()))


def _placements(scene: Scene, new: Thing) -> Iterator[tuple[tuple[Thing, ...], tuple[str, ...]]]:
    if not scene.things:
        yield (new,), ("", "in the picture")
        return
    old = scene.things[0]
    for things, side in (((old, new), "right"), ((new, old), "left")):
        yield things, ("", f"next to the {old.kind}", f"on the {side}", f"to the {side} of the {old.kind}")


def _background(scene: Scene, description: Description) -> Iterator[Change]:
    if not scene.things:
        return
    subject = f" {description.joiner} ".join(thing.phrase for thing in scene.things)
    for background in PLACES:
        if background == scene.background:
            continue
        place = PLACE_NOUNS[background]
        if description.form != "place first":
            place = PLACES[background].split(" ", 1)[1]
        yield Change(
            after=replace(scene, background=background),
            description=description,
            original_object=subject,
            edited_object=place,
            words={
                "the": _references(scene.things[0]) if len(scene.things) == 1 else ("everything",),
                "place": (PLACE_NOUNS[background],),
                "in_place": (PLACES[background],),
            },
        )


def _global(scene: Scene, description: Description) -> Iterator[Change]:
    for time in TIMES:
        if time != scene.time:
            words = {"time": (time,), "other_time": (scene.time,), "at_time": (_AT_TIME[time],)}
            yield Change(replace(scene, time=time), description, "", "", words)


def _point_at(scene: Scene, description: Description) -> Iterator[Change]:
    for thing in scene.things:
        yield Change(scene, description, thing.phrase, "", {"the": _references(thing)})


def _whole(scene: Scene, description: Description) -> Iterator[Change]:
    yield Change(scene, description, "", "", {"how": STRENGTHS})


_CHANGES = {
    "adjust": _whole,
    "sketch": _whole,
    "local": _local,
    "remove": _remove,
    "add": _add,
    "texture": _texture,
    "background": _background,
    "global": _global,
    "detect": _point_at,
    "segment": _point_at,
    "color": _color,
}

TASKS = sorted(_CHANGES)
"""The tasks of the drawn world."""
