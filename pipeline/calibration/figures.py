"""Precision and recall with intervals from a bootstrap over captions."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.verdicts.estimate import Estimate, Known, Share, by_task, estimate

RESAMPLES = 2000


def measured(known: Sequence[Known]) -> Estimate:
    """Precision and recall over some rows.

    The intervals are 95 % percentile intervals of a bootstrap that draws captions, not rows, because rows of
    one caption resemble each other (Efron & Tibshirani 1993, chapter 8). They are widened to Wilson's where
    these are wider: without a wrong row, every resample has a share of 1.
    """
    plain = estimate(known)
    captions = {caption: place for place, caption in enumerate(sorted({row.row.caption for row in known}))}
    sums = np.zeros((len(captions), 4))
    for row in known:
        if row.got is None:
            continue
        kept, possible = row.row.kept, row.possible is True
        sums[captions[row.row.caption]] += row.weight * np.array(
            [row.got and kept, kept, row.got and possible, possible], float
        )
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(captions), [1 / max(len(captions), 1)] * len(captions), RESAMPLES) @ sums
    got_kept, kept, got_possible, possible = drawn.T
    precision, recall = _wider(plain.precision, got_kept, kept), _wider(plain.recall, got_possible, possible)
    return Estimate(plain.judged, precision, recall)


def _wider(share: Share, hits: np.ndarray, totals: np.ndarray) -> Share:
    there = totals > 0
    if share.value is None or not there.any():
        return share
    low, high = np.quantile(hits[there] / totals[there], (0.025, 0.975))
    return Share(share.value, min(share.low, float(low)), max(share.high, float(high)), share.rows)


def measured_by_task(known: Sequence[Known]) -> Mapping[str, Estimate]:
    return {task: measured([row for row in known if row.row.task == task]) for task in by_task(known)}
