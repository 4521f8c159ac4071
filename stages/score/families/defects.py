"""Metrics of defects in a single picture or mask. numpy's min and max, unlike Python's, keep a NaN."""

import numpy as np

from stages.score.evidence import Evidence
from stages.score.families.change import fidelity
from stages.score.metric import NONNEGATIVE, Metric, needs_boxes


def _contrast(evidence: Evidence) -> float | None:
    contrast, drawn = fidelity().contrast, evidence.candidate["contrast_raw"]
    return float(np.min([contrast(evidence.i), contrast(evidence.tar), *([] if drawn is None else [drawn])]))


METRICS = (
    Metric(
        "mask_fit",
        "overlap (IoU) of the frames around the grounded boxes and around the precise mask",
        "pictures",
        lambda e: fidelity().mask_fit(e.row.region.boxes, e.row.region.precise),
        sense="more",
        unsuited=needs_boxes,
    ),
    Metric(
        "clipped",
        "share of pixels that are pure black or pure white, of I or Tar: the greater one",
        "pictures",
        lambda e: float(np.max([fidelity().clipped(e.i), fidelity().clipped(e.tar)])),
        sense="less",
        guard=True,
    ),
    Metric(
        "contrast",
        "standard deviation of the grey values in [0,1], of I, Tar or the drawing before its outside "
        "was pasted: the least one; a flat picture has none",
        "pictures",
        _contrast,
        sense="more",
        guard=True,
    ),
    Metric(
        "roughness",
        "mean difference of neighbouring grey values over their deviation, of I or Tar: the greater "
        "one; noise has 1.1",
        "pictures",
        lambda e: float(np.max([fidelity().roughness(e.i), fidelity().roughness(e.tar)])),
        NONNEGATIVE,
        sense="less",
        guard=True,
    ),
)
