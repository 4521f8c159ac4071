"""Piecewise linear functions of metrics: the columns that a fit weighs, and back from slopes to curves."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.calibration.examples import Examples
from stages.filter.model import Curve
from stages.score.metrics import METRICS

KNOTS = (0.1, 0.5, 0.9)
"""Quantiles of a task's examples between which a curve is straight."""
FAR = 20.0
"""Where a metric has no lowest or highest value, a curve ends so many spreads beyond the outermost knot."""
DIGITS = 6
"""Significant digits of the numbers in a model, a few more than scores (float32) carry."""


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True, eq=False)
class Hinges:
    """One metric of a task as columns, one per straight piece of its curve.

    The column of a piece rises by 1 per spread of the metric within the piece, and is constant elsewhere. A
    curve's slope in a piece is thus the weight of its column. Columns are centred, so that a curve adds 0 on
    average, and a missing value counts as that.
    """

    metric: str
    knots: np.ndarray
    """Ascending; the k knots part k + 1 pieces."""
    spread: float
    means: np.ndarray
    """Mean of each column before it was centred."""
    seen: tuple[float, float]
    """Lowest and highest value of the examples."""
    optional: bool
    """Whether a candidate without a value is let through."""

    @property
    def pieces(self) -> int:
        return len(self.knots) + 1

    def columns(self, values: np.ndarray) -> np.ndarray:
        """Columns float [n,pieces] for values [n]; a NaN gives zeros."""
        edges = [-np.inf, *self.knots, np.inf]
        raw = [
            (np.clip(values, low, high) - (high if np.isinf(low) else low)) / self.spread
            for low, high in pairwise(edges)
        ]
        centred = np.stack(raw, 1) - self.means
        return np.where(np.isnan(values)[:, None], 0.0, centred)

    def curve(self, slopes: np.ndarray) -> Curve:
        """The curve with these slopes [pieces].

        Where the metric speaks against a pair the curve goes on straight: a fault can have values that no
        example has. On the other side it is constant beyond the examples: no value makes up for a fault.
        """
        low, high = METRICS[self.metric].range
        sense = METRICS[self.metric].sense
        first = max(low, self.knots[0] - FAR * self.spread) if sense == "more" else self.seen[0]
        last = min(high, self.knots[-1] + FAR * self.spread) if sense == "less" else self.seen[1]
        at = sorted({rounded(x) for x in (first, *self.knots, last) if first <= x <= last})
        adds = self.columns(np.array(at)) @ slopes
        return Curve(
            at=tuple(at),
            adds=tuple(rounded(value) for value in adds),
            missing=0.0 if self.optional else None,
        )


def hinges_of(
    examples: Mapping[str, Examples], needed: Mapping[str, Collection[str]]
) -> dict[str, list[Hinges]]:
    """The columns of each task's metrics.

    Args:
        examples: by task.
        needed: by task, metrics without which a candidate is rejected.
    """
    spreads = _spreads(examples)
    return {
        task: [
            _hinges(metric, values, found.weights, spreads[metric], metric not in needed[task])
            for metric, values in zip(found.metrics, found.values.T, strict=True)
        ]
        for task, found in examples.items()
    }


def _hinges(metric: str, values: np.ndarray, weights: np.ndarray, spread: float, optional: bool) -> Hinges:
    there = ~np.isnan(values)
    knots = np.unique(np.quantile(values[there], KNOTS))
    seen = (float(values[there].min()), float(values[there].max()))
    plain = Hinges(metric, knots, spread, np.zeros(len(knots) + 1), seen, optional)
    means = np.average(plain.columns(values[there]), axis=0, weights=weights[there])
    return Hinges(metric, knots, spread, means, seen, optional)


def _spreads(examples: Mapping[str, Examples]) -> dict[str, float]:
    """Standard deviation of each metric within tasks, so that a slope means the same in every task."""
    deviations: dict[str, list[np.ndarray]] = {}
    for found in examples.values():
        for place, metric in enumerate(found.metrics):
            values = found.values[:, place]
            values = values[~np.isnan(values)]
            deviations.setdefault(metric, []).append(values - values.mean())
    return {
        metric: float(np.sqrt(np.mean(np.concatenate(parts) ** 2))) for metric, parts in deviations.items()
    }
