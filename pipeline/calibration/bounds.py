"""Bounds around the right examples: what lies beyond nearly all of them, verdicts cannot vouch for."""

from collections.abc import Iterator

import numpy as np

from pipeline.calibration.curves import DIGITS, rounded
from pipeline.calibration.examples import Examples
from stages.score.metrics import METRICS
from stages.tasks import Bounds

PEELED = 0.02
"""Greatest share of a task's right examples that its bounds peel off, all together."""


def peel(examples: Examples) -> dict[str, Bounds]:
    """The tightest bounds that peel off at most ``PEELED`` of a task's right examples.

    As in PRIM (Friedman & Fisher 1999), slices are taken from the ends of metrics, but only where a metric
    speaks against a pair; from both ends if its sense is unknown. All slices hold the same share of the right
    examples. Of few examples none is peeled off, and the outermost right values are the bounds. Guards keep
    the bounds that they have.
    """
    weights = examples.weights[examples.right]
    ends = [(metric, sign, sign * values[examples.right]) for metric, sign, values in _ends(examples)]
    if not ends or not len(weights):
        return {}
    tails = np.array([_tail(values, weights / weights.sum()) for _, _, values in ends])
    level = _level(tails.min(0), weights / weights.sum())
    bounds: dict[str, dict[str, float]] = {}
    for (metric, sign, values), tail in zip(ends, tails, strict=True):
        inside = values[(tail > level) & ~np.isnan(values)]
        if len(inside):
            limit = sign * _outward(float(inside.min()))
            low, high = METRICS[metric].range
            if low < limit < high:
                bounds.setdefault(metric, {})["min" if sign > 0 else "max"] = limit
    return {metric: Bounds(**stated) for metric, stated in bounds.items()}


def _level(tails: np.ndarray, weights: np.ndarray) -> float:
    """The greatest share of a slice with which at most ``PEELED`` of the examples lie in any slice.

    Args:
        tails: float [n], the share of the smallest slice that an example lies in.
        weights: float [n], summing to 1.
    """
    order = np.argsort(tails, kind="stable")
    peeled = np.cumsum(weights[order])
    # Examples in slices of one size are peeled off together: the last of them counts.
    last = np.append(np.diff(tails[order]) > 0, True)
    allowed = tails[order][last & (peeled <= PEELED)]
    return float(allowed[-1]) if len(allowed) else 0.0


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
    """For each example the share of examples with its value or a lower one; 1 if it has no value."""
    order = np.argsort(values, kind="stable")  # NaN comes last
    upto = np.cumsum(weights[order])
    tail = upto[np.searchsorted(values[order], values, side="right") - 1]
    return np.where(np.isnan(values), 1.0, tail)


def _outward(value: float) -> float:
    """A number of few digits that is not above ``value``, so that rounding excludes no example."""
    near = rounded(value)
    return near if near <= value else rounded(value - abs(value) * 10.0 ** (1 - DIGITS))
