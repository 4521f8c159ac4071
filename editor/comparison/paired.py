"""Paired differences of figures: the same edits, made by editors of two arms with the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from editor.evaluation.evaluate import ALL
from editor.evaluation.intervals import Interval, mean_intervals


@dataclass(frozen=True)
class Figures:
    """Figures of one editor: ``values`` float [edits, columns], NaN where a metric does not apply.

    ``groups``: edits of one picture have the same group. ``ids`` are unique.
    """

    ids: Sequence[str]
    groups: Sequence[str]
    tasks: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray


@dataclass(frozen=True)
class Difference:
    """Means of one metric over the edits of both arms, and of second - first.

    The intervals are by bootstrap over groups of edits, after averaging over the seeds. ``by_seed`` are the
    mean differences of each seed, which show how much a training's chance matters.
    """

    first: Interval
    second: Interval
    difference: Interval
    by_seed: Sequence[float]


Differences = Mapping[str, Mapping[str, Difference]]
"""By task (and over all), then by metric."""


def paired(first: Sequence[Figures], second: Sequence[Figures]) -> Differences:
    """The differences of two arms.

    Args:
        first, second: one element per seed, in the same order. Only edits that all of them have count, and of
            these only values that all of them have.
    """
    columns = [column for column in first[0].columns if column in second[0].columns]
    shared = set(first[0].ids).intersection(*(figures.ids for figures in (*first, *second)))
    ids = [name for name in first[0].ids if name in shared]
    places = {name: k for k, name in enumerate(first[0].ids)}
    groups = [first[0].groups[places[name]] for name in ids]
    tasks = np.array([first[0].tasks[places[name]] for name in ids])
    before, after = (np.stack([_values(each, ids, columns) for each in arm]) for arm in (first, second))
    change = after - before
    mean = change.mean(0)
    lost = np.isnan(mean)
    first_mean, second_mean = (np.where(lost, np.nan, arm.mean(0)) for arm in (before, after))
    found = {}
    for task in (ALL, *sorted(set(tasks.tolist()))):
        rows = np.arange(len(ids)) if task == ALL else np.flatnonzero(tasks == task)
        chosen = [groups[row] for row in rows]
        intervals = [mean_intervals(x[rows], chosen) for x in (first_mean, second_mean, mean)]
        found[task] = {
            column: Difference(
                intervals[0][k],
                intervals[1][k],
                intervals[2][k],
                [_mean(seed[rows][~lost[rows, k], k]) for seed in change],
            )
            for k, column in enumerate(columns)
            if intervals[2][k].count
        }
    return found


def _values(figures: Figures, ids: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    places = {name: k for k, name in enumerate(figures.ids)}
    order = [list(figures.columns).index(column) for column in columns]
    return figures.values[np.ix_([places[name] for name in ids], order)]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
