"""Log-odds of candidates by fits that had not seen their captions, and what they say about the fit itself."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.calibration.curves import hinges_of, rounded
from pipeline.calibration.examples import Examples, examples_of
from pipeline.calibration.fit import fit
from pipeline.calibration.folds import folds
from pipeline.calibration.operating import log_loss, recalibrate
from pipeline.verdicts.estimate import Known, RowKey
from stages.filter.model import TaskModel
from stages.tasks import Tasks

SIZES = (0.1, 0.3, 1.0)
"""Expected sizes of a slope that are tried, in log-odds per spread of the metric."""

Needed = Mapping[str, Collection[str]]
"""By task, the metrics without which a candidate is rejected."""


@dataclass(frozen=True)
class HeldOut:
    """What cross-validation tells."""

    size: float
    """The expected size of slopes that predicts held-out verdicts best."""
    offset: float
    factor: float
    """``offset + factor * log-odds`` of a fit are calibrated (:func:`recalibrate`)."""
    log_odds: Mapping[RowKey, Sequence[float]]
    """Calibrated log-odds of each candidate, by row."""


def held_out(known: Sequence[Known], tasks: Tasks, needed: Needed) -> HeldOut:
    """Cross-validate fits with slopes of different sizes.

    Args:
        known: judged rows of the tasks that are calibrated.
        tasks: the run's tasks.
        needed: see ``Needed``.
    """
    tried = []
    for size in SIZES:
        odds = dict(_odds_by_row(known, tasks, needed, size))
        judged = [example for row in known for example in _judged(row, odds)]
        z, right, weights = (np.array(column) for column in zip(*judged, strict=True))
        weights = weights * (len(known) / weights.sum())
        offset, factor = recalibrate(z, right, weights)
        loss = log_loss(offset + factor * z, right, weights)
        scaled = {key: [offset + factor * value for value in of_row] for key, of_row in odds.items()}
        tried.append((loss, HeldOut(size, offset, factor, scaled)))
    return min(tried, key=lambda each: each[0])[1]


def fitted(examples: Mapping[str, Examples], needed: Needed, size: float) -> dict[str, TaskModel]:
    """Intercept and curves by task, not recalibrated; with neither bounds nor a threshold.

    A metric that tells nothing has a flat curve, so that its bounds by hand are replaced too.
    """
    hinges = hinges_of(examples, needed)
    found = fit(examples, hinges, size)
    return {
        task: TaskModel(
            threshold=0.0,
            intercept=rounded(found.intercepts[task]),
            curves={
                of_metric.metric: of_metric.curve(slopes)
                for of_metric, slopes in zip(hinges[task], found.slopes[task], strict=True)
            },
        )
        for task in examples
    }


def _odds_by_row(
    known: Sequence[Known], tasks: Tasks, needed: Needed, size: float
) -> Iterator[tuple[RowKey, list[float]]]:
    """Log-odds of every candidate by a fit to the other folds, computed as the filter does."""
    for training, rest in folds(known):
        models = fitted(examples_of(training, tasks), needed, size)
        for row in (each.row for each in rest):
            if row.task in models:
                yield (row.id, row.turn), [models[row.task].log_odds(scores) for scores in row.scores]


def _judged(row: Known, odds: Mapping[RowKey, Sequence[float]]) -> list[tuple[float, bool, float]]:
    """(log-odds, verdict, weight) of a row's judged candidates that have all needed metrics."""
    of_row = odds.get((row.row.id, row.row.turn), ())
    found = [
        (value, right)
        for value, right in zip(of_row, row.right, strict=False)
        if right is not None and np.isfinite(value)
    ]
    return [(value, right, row.weight / len(found)) for value, right in found]
