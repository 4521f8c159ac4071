"""Bounds around the right examples: what lies far beyond all of them, verdicts cannot vouch for."""

import numpy as np

from pipeline.calibration.curves import rounded
from pipeline.calibration.examples import Examples
from stages.score.metrics import METRICS
from stages.tasks import Bounds

MARGIN = 1.0
"""Distance of a bound from the outermost right example, in standard deviations of the right examples."""


def peel(examples: Examples) -> dict[str, Bounds]:
    """For each metric the bounds that peel off only values far from those of all right examples.

    A metric whose sense is known is bounded where it speaks against a pair, others on both sides. Guards keep
    the bounds that they have.
    """
    bounds = {}
    for metric, values in zip(examples.metrics, examples.values.T, strict=True):
        there = values[examples.right & ~np.isnan(values)]
        if METRICS[metric].guard or not len(there):
            continue
        low, high = METRICS[metric].range
        margin = MARGIN * float(there.std())
        least, most = float(there.min()) - margin, float(there.max()) + margin
        sense = METRICS[metric].sense
        stated = Bounds(
            min=rounded(least) if sense != "less" and least > low else None,
            max=rounded(most) if sense != "more" and most < high else None,
        )
        if stated != Bounds():
            bounds[metric] = stated
    return bounds
