"""Held-out edits of the drawn world, of which the renderer knows the truth, and figures from the judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stages.tasks import Tasks, load_tasks
from toybox.evaluation.judge import Seen
from toybox.world.answers import changes, sample_description
from toybox.world.reading import Content, Look, content_of
from toybox.world.render import render
from toybox.world.scene import Scene, sample_held_out_scene, without
from toybox.world.wordings import wordings

TASKS = ("local", "remove", "add", "texture", "background", "global", "color")
"""The tasks whose result a judge can read."""
PROMPTS = Path(__file__).parents[2] / "prompts"
CHANGED = 24
"""Least difference of a changed pixel, summed over RGB."""
REACH = 5
"""Side in pixels of the square by which the changed area is widened."""


@dataclass(frozen=True)
class HeldOutEdit:
    """One edit: the scenes before and after it, and its instruction. ``scene`` numbers the drawn scene."""

    task: str
    instruction: str
    before: Scene
    after: Scene
    scene: int

    @cached_property
    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """The true pictures before and after, uint8 [h,w,3]."""
        return render(self.before).image, render(self.after).image

    @cached_property
    def outside(self) -> np.ndarray:
        """The pixels away from the change, bool [h,w]."""
        before, after = (picture.astype(np.int16) for picture in self.pictures)
        changed = (np.abs(after - before).sum(-1) > CHANGED).astype(np.uint8)
        return cv2.dilate(changed, np.ones((REACH, REACH), np.uint8)) == 0

    def error_outside(self, picture: np.ndarray) -> float:
        """Mean absolute difference from the truth away from the change, in [0,1]; NaN if all is changed."""
        if not self.outside.any():
            return float("nan")
        difference = np.abs(picture.astype(np.float64) - self.pictures[1]).mean(-1) / 255
        return float(difference[self.outside].mean())

    def is_done(self, seen: Content) -> bool:
        """Whether what was asked for happened, whatever else changed."""
        before, after = content_of(self.before), content_of(self.after)
        if self.task in ("global", "background"):
            name = "time" if self.task == "global" else "background"
            return bool(getattr(seen, name) == getattr(after, name))
        there, wanted, found = (_looks(content, self.task) for content in (before, after, seen))
        return wanted - there <= found and not (there - wanted) & found

    def is_right(self, seen: Content) -> bool:
        """Whether a picture shows exactly the content after the edit.

        Textures count only for the texture task, and the order of objects only where a side was asked for.
        """
        found, wanted = (self._compared(content) for content in (seen, content_of(self.after)))
        return found == wanted

    def _compared(self, content: Content) -> Any:
        things = content.things
        if self.task != "texture":
            things = tuple(replace(thing, texture="") for thing in things)
        if self.task == "add" and not {"left", "right"} & set(self.instruction.split()):
            things = tuple(sorted(things, key=str))
        return things, content.background, content.time


_ASPECTS: dict[str, Callable[[Look], tuple[str, ...]]] = {
    "local": lambda look: (look.kind,),
    "remove": lambda look: (look.kind,),
    "add": lambda look: (look.kind, look.color),
    "color": lambda look: (look.kind, look.color),
    "texture": lambda look: (look.kind, look.texture),
}


def _looks(content: Content, task: str) -> set[tuple[str, ...]]:
    return {_ASPECTS[task](look) for look in content.things}


def sample_edits(each: int, seed: int = 31, tasks: Sequence[str] = TASKS) -> list[HeldOutEdit]:
    """``each`` edits of every task, of scenes with held-out combinations. The result is always the same.

    A scene has at most two edits, so N edits come from at least N/2 scenes.
    """
    known = load_tasks(PROMPTS)
    edits: list[HeldOutEdit] = []
    wanted = [task for _ in range(each) for task in tasks]
    number = 0
    while wanted:
        rng = np.random.default_rng([seed, number])
        scene = sample_held_out_scene(rng, things=int(rng.choice([1, 2])))
        for task in wanted[:2]:
            edit = _sample(task, scene, number, known, rng)
            if edit is not None:
                edits.append(edit)
                wanted.remove(task)
        number += 1
    return sorted(edits, key=lambda edit: tasks.index(edit.task))


def _sample(
    task: str, scene: Scene, number: int, known: Tasks, rng: np.random.Generator
) -> HeldOutEdit | None:
    description = sample_description(rng)
    if task == "add":  # a removal backwards, so that the new object has a size and place that fit
        full, scene = scene, without(scene, int(rng.integers(len(scene.things))))
        wanted = content_of(full)
        options = [c for c in changes(scene, description, task) if content_of(c.after) == wanted]
        options = [replace(option, after=full) for option in options]
    else:
        options = changes(scene, description, task)
    if not options:
        return None
    change = options[rng.integers(len(options))]
    verbs = known[task].verbs
    texts = wordings(task, verbs[rng.integers(len(verbs))], change.words)
    return HeldOutEdit(task, texts[rng.integers(len(texts))], scene, change.after, number)


def figures(
    edits: Sequence[HeldOutEdit], pictures: Sequence[np.ndarray], seen: Sequence[Seen]
) -> dict[str, Any]:
    """Shares of edits done and right, and the error outside, with 95 % intervals: by task and over all.

    The intervals are by bootstrap over scenes, because the edits of a scene are alike.
    """
    values = np.array(
        [
            (edit.is_done(found.content), edit.is_right(found.content), edit.error_outside(picture))
            for edit, picture, found in zip(edits, pictures, seen, strict=True)
        ],
        dtype=np.float64,
    )
    names = {"all": range(len(edits))} | {
        task: [k for k, edit in enumerate(edits) if edit.task == task]
        for task in dict.fromkeys(edit.task for edit in edits)
    }
    scenes = np.array([edit.scene for edit in edits])
    return {name: _shares(values[list(rows)], scenes[list(rows)]) for name, rows in names.items()}


def _shares(values: np.ndarray, scenes: np.ndarray, draws: int = 1000) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(scenes == scene) for scene in np.unique(scenes)]
    means = []
    for _ in range(draws):
        rows = np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])
        means.append(_means(values[rows]))
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    middle = _means(values)
    columns = {
        name: {"mean": float(middle[k]), "low": float(low[k]), "high": float(high[k])}
        for k, name in enumerate(("done", "right", "outside"))
    }
    return {"edits": len(values), "scenes": len(groups), **columns}


def _means(values: np.ndarray) -> np.ndarray:
    """Means of columns without NaN, which marks edits of the whole picture; 0 for a column of NaN alone."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1))
