"""Judge the edits of a toybox run: does each picture show the content of its caption?

An edit is right if the judge reads the input caption's content in I and the output caption's content in Tar.
Content is the ordered objects with kind and colour, the place and the time; for the texture task also the
textures. The models of the filter have no part in this.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store.plan import read_plan
from pipeline.views.rows import rows
from pipeline.views.run import open_state
from stages.pair import EditPair, as_pair
from stages.pictures.png import decode_rgb
from stages.tasks import Task, load_tasks
from toybox.evaluation.judge import Judge
from toybox.world.reading import Content, read_caption

READS = {
    "plan": ["task", "caption"],
    "instruct": ["output_caption"],
    "edit": ["anchor", "candidates"],
    "filter": ["choice"],
}
PROMPTS = Path(__file__).parents[2] / "prompts"


@dataclass(frozen=True)
class JudgedEdit:
    """One candidate of a row.

    ``right`` says the judge, ``chosen`` if the row was kept with this candidate, ``decided`` if the filter
    has kept or rejected the row.
    """

    row: str
    task: str
    candidate: int
    right: bool
    chosen: bool
    decided: bool


def judge_edits(run: Path, judge: Judge) -> Iterator[JudgedEdit]:
    """Judge every Prompt-to-Prompt candidate in a finished run."""
    tasks = load_tasks(PROMPTS)
    for record in _drawn(run):
        task = tasks[record["task"]]
        if task.method != "prompt2prompt":
            continue
        anchor = decode_rgb(record["anchor"])
        decided = record["stage"] == "filter" and record["status"] != "failed"
        for index, candidate in enumerate(record["candidates"]):
            drawn = decode_rgb(candidate["image"])
            pair = as_pair(task, anchor, drawn, record["caption"], record["output_caption"])
            chosen = index == record.get("choice")
            yield JudgedEdit(record["id"], task.name, index, is_right(judge, task, pair), chosen, decided)


def judge_run(run: Path, judge: Judge) -> dict[str, Any]:
    """Shares of right edits by task: over all candidates, by candidate, and over the kept pairs.

    ``planned`` counts rows, ``drawn`` counts candidates, ``kept`` counts pairs.
    """
    plan = read_plan(run / "plan.parquet")
    if plan is None:
        raise FileNotFoundError(f"there is no run at {run}")
    by_task: dict[str, list[JudgedEdit]] = defaultdict(list)
    for edit in judge_edits(run, judge):
        by_task[edit.task].append(edit)
    return {
        "tasks": {
            task: {"planned": plan.tasks[task], **_shares(edits)} for task, edits in sorted(by_task.items())
        },
        "all": _shares([edit for edits in by_task.values() for edit in edits]),
    }


def _shares(edits: list[JudgedEdit]) -> dict[str, Any]:
    kept = [edit for edit in edits if edit.chosen]
    candidates = Counter(edit.candidate for edit in edits)
    right = Counter(edit.candidate for edit in edits if edit.right)
    return {
        "drawn": len(edits),
        "right": float(np.mean([edit.right for edit in edits])),
        "right_by_candidate": [right[k] / candidates[k] for k in sorted(candidates)],
        "kept": len(kept),
        "kept_right": float(np.mean([edit.right for edit in kept])) if kept else None,
    }


def is_right(judge: Judge, task: Task, pair: EditPair[np.ndarray]) -> bool:
    """Whether each picture of a pair shows the content of its caption."""
    sides = ((pair.input, pair.input_caption), (pair.target, pair.output_caption))
    return all(shows(judge, task, image, caption) for image, caption in sides)


def shows(judge: Judge, task: Task, image: np.ndarray, caption: str) -> bool:
    """Whether a picture shows the content of a caption."""
    try:
        asked = read_caption(caption)
    except ValueError:
        return False
    (seen,) = judge.look([image])
    return _compared(seen.content, task) == _compared(asked, task)


def _compared(content: Content, task: Task) -> Content:
    """The content compared for a task: textures count only for the texture task."""
    if task.name == "texture":
        return content
    return replace(content, things=tuple(replace(thing, texture="") for thing in content.things))


def _drawn(run: Path) -> Iterator[Mapping[str, Any]]:
    """The rows that the edit stage kept, with the chosen candidate of kept rows."""
    state = open_state(run)
    for part in range(state.plan.parts):
        if state.done(state.steps["filter"], part):
            yield from (row for row in rows(state, part, READS) if row.get("candidates"))
