"""The choice of one candidate per row: what a candidate must meet, and which of several is the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.filter.model import TaskModel
from stages.score.metric import Scores
from stages.score.metrics import JUDGED, METRICS
from stages.tasks import Bounds


@dataclass(frozen=True)
class Choice:
    """The best candidate. ``reason`` is empty if the candidate is within all bounds."""

    index: int
    reason: str


def choose(
    candidates: Sequence[Scores], bounds: Mapping[str, Bounds], model: TaskModel | None = None
) -> Choice:
    """Choose the candidate with the highest rank (:func:`rank`) among those that pass.

    A tie goes to the lower index. If no candidate passes, the reason is that of the best of all candidates.

    Raises:
        ValueError: there is no candidate, or a score is not a finite number.
    """
    if not candidates:
        raise ValueError("the row has no candidate")
    for index, scores in enumerate(candidates):
        for metric, value in scores.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{metric} of candidate {index} is not a finite number")
    reasons = [objection(scores, bounds, model) for scores in candidates]
    passing = [index for index, reason in enumerate(reasons) if not reason]
    best = max(passing or range(len(candidates)), key=lambda index: rank(candidates[index], model))
    return Choice(best, reasons[best])


def objection(scores: Scores, bounds: Mapping[str, Bounds], model: TaskModel | None = None) -> str:
    """Why a candidate does not pass: a violated bound, then what its task's model says; "" if it passes."""
    broken = broken_bound(scores, bounds)
    if broken or model is None:
        return broken
    if missing := model.missing(scores):
        return f"{missing}_missing"
    return "" if model.probability(scores) >= model.threshold else "calibrated_low"


def broken_bound(scores: Scores, bounds: Mapping[str, Bounds]) -> str:
    """The first violated bound of a candidate, as ``<metric>_low`` or ``<metric>_high``; "" if there is none.

    A metric without a value violates its bound as ``<metric>_missing``: an unmeasured candidate may be bad.
    The exceptions are metrics of models that a manifest may leave out (``Metric.optional``), and the judge's
    in a run without the judge stage: there they are no keys of ``scores``.
    """
    for metric, bound in bounds.items():
        value = scores.get(metric)
        if value is None:
            if METRICS[metric].optional or (metric in JUDGED and metric not in scores):
                continue
            return f"{metric}_missing"
        if bound.min is not None and not value >= bound.min:
            return f"{metric}_low"
        if bound.max is not None and not value <= bound.max:
            return f"{metric}_high"
    return ""


def rank(scores: Scores, model: TaskModel | None = None) -> float:
    """The value that ranks candidates: the model's probability; without a model, ``clip_direction``.

    It is minus infinity for a candidate that has neither.
    """
    if model is not None:
        return model.probability(scores)
    direction = scores.get("clip_direction")
    return -math.inf if direction is None else direction
