"""Bounds around the right examples: what lies beyond nearly all of them, verdicts cannot vouch for."""

import math
from collections.abc import Iterator

import numpy as np

from pipeline.calibration.curves import DIGITS
from pipeline.calibration.examples import Examples
from stages.score.metrics import METRICS
from stages.tasks import Bounds

PEELED = 0.02
"""Greatest share of a task's right examples that its bounds peel off, all together."""


def peel(examples: Examples) -> dict[str, Bounds]:
    """The tightest bounds that peel off at most ``PEELED`` of the right examples, the same share of each metric.

    As in PRIM (Friedman & Fisher 1999), slices are taken from the ends of metrics, but only where a metric
    speaks against a pair; at both ends if its sense is unknown. Guards keep the bounds that they have. Of few
    examples none is peeled off: then the bounds are the outermost right values.
    """
    right = examples.right
    weights = examples.weights[right] / max(examples.weights[right].sum(), 1e-12)
    ends = [(metric, sign, values[right] * sign) for metric, sign, values in _ends(examples)]
    if not ends or not right.any():
        return {}
    tails = np.array([_tail(values, weights) for _, _, values in ends])
    least = np.nanmin(np.where(np.isnan(tails), np.inf, tails), axis=0)
    order = np.argsort(least, kind="stable")
    lost = np.cumsum(weights[order])
    # Equal tails are peeled off together or not at all.
    levels = [least[order[n]] for n in range(len(order)) if lost[n] <= PEELED]
    level = max((x for x in levels if weights[least <= x].sum() <= PEELED + 1e-9), default=0.0)
    bounds: dict[str, dict[str, float]] = {}
    for (metric, sign, values), tail in zip(ends, tails, strict=True):
        inside = values[tail > level]
        if len(inside):
            limit = sign * _outward(float(inside.min()))
            low, high = METRICS[metric].range
            if low < limit < high:
                bounds.setdefault(metric, {})["min" if sign > 0 else "max"] = limit
    return {metric: Bounds(**stated) for metric, stated in bounds.items()}


def _ends(examples: Examples) -> Iterator[tuple[str, int, np.ndarray]]:
    """Metric, sign and values; the bad end is where sign * values is low."""
    for metric, values in zip(examples.metrics, examples.values.T, strict=True):
        sense = METRICS[metric].sense
        if METRICS[metric].guard:
            continue
        if sense != "less":
            yield metric, 1, values
        if sense != "more":
            yield metric, -1, values


def _tail(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each value the share of the examples at or below it; NaN where there is no value."""
    there = ~np.isnan(values)
    order = np.sort(values[there])
    cumulated = np.cumsum(weights[there][np.argsort(values[there], kind="stable")])
    tail = np.full(len(values), np.nan)
    tail[there] = cumulated[np.searchsorted(order, values[there], side="right") - 1]
    return tail


def _outward(value: float) -> float:
    """The next lower number of ``DIGITS`` significant digits, so that rounding excludes no example."""
    if not value:
        return 0.0
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(abs(value))))
    return math.floor(value * scale) / scale
