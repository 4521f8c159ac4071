"""Strata and the order of the draw: which rows are shown, and which share of all rows each stands for.

A stratum is a task, a decision of the filter, and whether the row is near a bound. Which row comes next is
known before the first verdict: it depends on the strata's sizes and on a hash of each row's id, and on no
verdict. The judged rows of a stratum are therefore a random draw from it, so that estimates weighted by
``rows / judged rows`` of each stratum are unbiased.
"""

import hashlib
import heapq
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.verdicts.population import Reviewable
from stages.filter.model import UNCALIBRATED, Models
from stages.score.metric import Scores
from stages.tasks import Bounds

SPREADS = {"near": 0.5, "far": 0.3}
"""Expected standard deviation of "is it right?" in a stratum: 0.5 is a toss-up, 0.3 is 9 of 10."""


@dataclass(frozen=True)
class Drawn:
    """A row in the draw."""

    row: Reviewable
    stratum: str
    stratum_rows: int


@dataclass(frozen=True)
class Draw:
    """All reviewable rows in the order in which they are shown."""

    rows: Sequence[Drawn]
    design: str
    """Digest of all strata. Equal for equal strata of the same run."""


def draw(
    population: Sequence[Reviewable],
    bounds: Mapping[str, Mapping[str, Bounds]],
    seed: int = 0,
    models: Models = UNCALIBRATED,
) -> Draw:
    """Order the rows so that after any number of verdicts the estimates of all tasks are about equally good.

    The next row comes from the stratum that reduces the variance of its task's estimate most (Neyman's
    allocation, one row at a time).

    Args:
        population: rows of a run.
        bounds: the filter's bounds by task and metric.
        seed: of the order within a stratum.
        models: of a calibrated filter, by task.
    """
    members: dict[str, list[Reviewable]] = defaultdict(list)
    for row, stratum in zip(population, strata(population, bounds, models), strict=True):
        members[stratum].append(row)
    for rows in members.values():
        rows.sort(key=lambda row: _place(row, seed))
    tasks: dict[str, int] = defaultdict(int)
    for row in population:
        tasks[row.task] += 1
    shares = {name: len(rows) / tasks[rows[0].task] for name, rows in members.items()}
    order = [
        Drawn(members[name][number], name, len(members[name]))
        for name, number in _allocation(shares, {name: len(rows) for name, rows in members.items()})
    ]
    digest = hashlib.blake2b(digest_size=8)
    for drawn in order:
        digest.update(f"{drawn.row.id} {drawn.row.turn} {drawn.stratum}\n".encode())
    return Draw(order, digest.hexdigest())


def _place(row: Reviewable, seed: int) -> bytes:
    """A row's random place in its stratum. It stays the same when rows are added or the strata change."""
    return hashlib.blake2b(f"{seed} {row.id} {row.turn}".encode(), digest_size=16).digest()


def _allocation(shares: Mapping[str, float], sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield (stratum, number of the row in it) for all rows.

    With n rows drawn, a stratum adds (share * spread)^2 / n to the variance of its task's estimate. One more
    row takes away (share * spread)^2 / (n * (n + 1)).
    """
    worth = {name: (share * SPREADS[name.rpartition(" ")[2]]) ** 2 for name, share in shares.items()}
    # The first row of each stratum comes before the second of any: without one, nothing is known of it.
    heap = [(-np.inf, -worth[name], name, 0) for name in worth]
    heapq.heapify(heap)
    while heap:
        _, value, name, number = heapq.heappop(heap)
        yield name, number
        if number + 1 < sizes[name]:
            drawn = number + 1
            heapq.heappush(heap, (value / (drawn * (drawn + 1)), value, name, drawn))


def strata(
    population: Sequence[Reviewable],
    bounds: Mapping[str, Mapping[str, Bounds]],
    models: Models = UNCALIBRATED,
) -> list[str]:
    """The stratum of each row: ``<task> <kept or rejected> <near or far>``.

    Near is the half of a task's kept, or rejected, rows whose margin is closest to 0.
    """
    distances = np.abs(margins(population, bounds, models))
    groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for index, row in enumerate(population):
        groups[row.task, row.kept].append(index)
    names = [""] * len(population)
    for (task, kept), members in groups.items():
        closest = sorted(members, key=lambda index: (distances[index], population[index].id))
        for place, index in enumerate(closest):
            near = "near" if 2 * place < len(members) else "far"
            names[index] = f"{task} {'kept' if kept else 'rejected'} {near}"
    return names


def margins(
    population: Sequence[Reviewable],
    bounds: Mapping[str, Mapping[str, Bounds]],
    models: Models = UNCALIBRATED,
) -> list[float]:
    """How far each row's best candidate is inside all bounds; negative: outside.

    The distance from a bound is in standard deviations of its metric over the task's candidates, so that
    metrics of any scale can be compared. The threshold of a calibrated model is a bound on its log-odds.
    """
    spreads = _spreads(population)
    return [
        max(
            min(
                _margin(scores, bounds.get(row.task, {}), spreads[row.task]),
                math.inf if (model := models.get(row.task)) is None else model.margin(scores),
            )
            for scores in row.scores
        )
        for row in population
    ]


def _spreads(population: Sequence[Reviewable]) -> dict[str, dict[str, float]]:
    """Standard deviation of each metric over a task's candidates."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in population:
        for scores in row.scores:
            for metric, value in scores.items():
                if value is not None:
                    values[row.task][metric].append(value)
    return {
        task: {metric: float(np.std(seen)) or 1.0 for metric, seen in metrics.items()}
        for task, metrics in values.items()
    }


def _margin(scores: Scores, bounds: Mapping[str, Bounds], spreads: Mapping[str, float]) -> float:
    """The distance from the nearest bound, or from the bound that is violated most."""
    distances = []
    for metric, bound in bounds.items():
        value = scores.get(metric)
        if value is None:
            continue
        if bound.min is not None:
            distances.append((value - bound.min) / spreads[metric])
        if bound.max is not None:
            distances.append((bound.max - value) / spreads[metric])
    return min(distances, default=0.0)
