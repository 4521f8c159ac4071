"""Judged rows whose verdicts follow a known law, without a run."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.verdicts.estimate import Known
from pipeline.verdicts.population import Reviewable
from stages.score.metrics import METRICS
from stages.tasks import Tasks
from tests.pipeline.reviewables import row_id
from tests.stages.tiny_tasks import tiny_task

LISTED = ("clip_text_output", "clip_direction", "clip_image", "change_outside", "present", "dino")
TASKS = Tasks({name: tiny_task(name, index=k, metrics=LISTED) for k, name in enumerate(("local", "color"))})


def judged(
    number: int,
    scores: Sequence[Mapping[str, float | None]],
    right: Sequence[bool | None],
    *,
    task: str = "local",
    caption: str = "",
    choice: int | None = None,
    weight: float = 1.0,
) -> Known:
    """One judged row."""
    row = Reviewable(
        id=row_id(number),
        turn=1,
        part=0,
        task=task,
        caption=caption or f"caption {number}",
        scores=[{**dict.fromkeys(METRICS), **of_one} for of_one in scores],
        choice=choice,
        anchor_hash=number,
        candidate_hashes=list(range(len(scores))),
    )
    return Known(row, tuple(right), weight)


def sampled(
    count: int, seed: int = 0, *, tasks: Sequence[str] = ("local", "color"), tells: float = 2.5
) -> list[Known]:
    """Rows with two candidates each, two rows a caption. About four of five candidates are right.

    A hidden quality decides the verdict. ``clip_text_output`` and ``present`` tell of it, the other metrics
    are noise. ``tells`` is how much more the quality moves a score than chance does.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        quality = rng.normal(size=2)
        noise = rng.normal(size=(2, len(LISTED)))
        told = (tells * quality[:, None] + noise[:, :2]) / np.hypot(tells, 1)
        scores = [
            {
                "clip_text_output": 0.8 + 0.05 * told[k, 0],
                "present": 0.5 + 0.1 * told[k, 1],
                "clip_direction": 0.5 + 0.1 * noise[k, 2],
                "clip_image": 0.7 + 0.05 * noise[k, 3],
                "change_outside": 0.002 + 0.0004 * noise[k, 4],
            }
            for k in range(2)
        ]
        right = [bool(q > -0.85) for q in quality]
        task = tasks[number % len(tasks)]
        rows.append(judged(number, scores, right, task=task, caption=f"caption {number // 4}", choice=0))
    return rows
