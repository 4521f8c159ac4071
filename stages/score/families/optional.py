"""Metrics by models that a manifest can name in ``score``: DINOv2, depth, an OCR engine, probes of CLIP."""

import numpy as np

from stages.score.evidence import Evidence
from stages.score.metric import ANY, COSINE, Metric


def _dino(evidence: Evidence) -> float | None:
    features, pair = evidence.seen.dino, evidence.pair
    return None if features is None else float(features[pair.input] @ features[pair.target])


def _depth_change(evidence: Evidence) -> float | None:
    depths, pair = evidence.seen.depth, evidence.pair
    return None if depths is None else float(np.abs(depths[pair.input] - depths[pair.target]).mean())


def _text_read(evidence: Evidence) -> float | None:
    return None if evidence.seen.read is None else evidence.seen.read[evidence.pair.target]


def _aesthetic(evidence: Evidence) -> float | None:
    both = evidence.probed("aesthetic")
    return float(np.min(both)) if both else None


def _nsfw(evidence: Evidence) -> float | None:
    both = evidence.probed("nsfw")
    return float(np.max(both)) if both else None


METRICS = (
    Metric("dino", "DINOv2 similarity of I and Tar, where score.dino names a model", "dino", _dino, COSINE),
    Metric(
        "depth_change",
        "mean |difference| of I's and Tar's depth maps in [0,1], where score.depth names a model",
        "depth",
        _depth_change,
    ),
    Metric(
        "text_read",
        "1 - character error rate of what is read where text was written, where score.ocr is true",
        "ocr",
        _text_read,
        sense="more",
    ),
    Metric(
        "aesthetic",
        "linear probe of CLIP's embedding of I or Tar, the lower, where score.aesthetic names one",
        "aesthetic",
        _aesthetic,
        ANY,
        sense="more",
    ),
    Metric(
        "nsfw",
        "linear probe of CLIP's embedding of I or Tar, the higher, where score.nsfw names one",
        "nsfw",
        _nsfw,
        ANY,
        sense="less",
        guard=True,
    ),
)
