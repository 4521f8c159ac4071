"""Examples: candidates with a clear verdict, as arrays of scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.verdicts.estimate import Known
from stages.score.metrics import metrics_of
from stages.tasks import Tasks

MOST = 1e6
"""Greatest number in a model (``stages.tasks.Limit``)."""
LEAST_MEASURED = 0.5
"""Least share of a task's examples that have a value, for a metric to be used."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of one task; n of them, and m metrics."""

    metrics: tuple[str, ...]
    """Metrics that the task lists and that differ between examples."""
    values: np.ndarray
    """float [n,m]; NaN where a metric has no value."""
    right: np.ndarray
    """bool [n]."""
    weights: np.ndarray
    """float [n]. The weights of all tasks' examples sum to the number of judged rows.

    A row's weight is shared by its examples: its candidates resemble each other."""
    rows: int
    """Number of rows that the examples belong to."""


def examples_of(known: Sequence[Known], tasks: Tasks) -> dict[str, Examples]:
    """The examples of each task.

    Args:
        known: judged rows with their weights.
        tasks: the tasks of the run.
    """
    clear = [row for row in known if any(right is not None for right in row.right)]
    total = sum(row.weight for row in clear)
    by_task: dict[str, list[Known]] = {}
    for row in clear:
        by_task.setdefault(row.row.task, []).append(row)
    return {
        task: _of_task(rows, [m.name for m in metrics_of(tasks[task]) if not m.backward], len(clear) / total)
        for task, rows in sorted(by_task.items())
    }


def _of_task(rows: Sequence[Known], listed: Sequence[str], scale: float) -> Examples:
    scores: list[Mapping[str, float | None]] = []
    right, weights = [], []
    for row in rows:
        judged = [k for k, verdict in enumerate(row.right) if verdict is not None]
        for k in judged:
            scores.append(row.row.scores[k])
            right.append(row.right[k])
            weights.append(row.weight * scale / len(judged))
    values = np.array([[of_one.get(metric) for metric in listed] for of_one in scores], float)
    values = values.reshape(len(scores), len(listed))
    used = [place for place in range(len(listed)) if _tells(values[:, place])]
    return Examples(
        tuple(listed[place] for place in used),
        values[:, used],
        np.array(right, bool),
        np.array(weights, float),
        len(rows),
    )


def _tells(values: np.ndarray) -> bool:
    """Whether a metric is measured often enough, and has more than one value, none of them huge."""
    there = values[~np.isnan(values)]
    return (
        len(there) >= LEAST_MEASURED * len(values)
        and len(np.unique(there)) > 1
        and np.abs(there).max() <= MOST
    )
