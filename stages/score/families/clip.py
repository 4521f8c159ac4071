"""Metrics by CLIP on pictures and captions."""

from types import ModuleType

from stages.score.evidence import Evidence
from stages.score.metric import COSINE, Metric


def _clip() -> ModuleType:
    from stages.models import clip

    return clip


def _clip_text(evidence: Evidence, picture: int, caption: str) -> float | None:
    text = evidence.seen.texts.get(caption)
    return None if text is None else _clip().similarity(evidence.seen.clip[picture], text)


def _clip_text_input(evidence: Evidence) -> float | None:
    return _clip_text(evidence, evidence.pair.input, evidence.pair.input_caption)


def _clip_text_output(evidence: Evidence) -> float | None:
    return _clip_text(evidence, evidence.pair.target, evidence.pair.output_caption)


def _clip_direction(evidence: Evidence) -> float | None:
    pair, images, texts = evidence.pair, evidence.seen.clip, evidence.seen.texts
    before, after = texts.get(pair.input_caption), texts.get(pair.output_caption)
    if before is None or after is None or pair.input_caption == pair.output_caption:
        return None
    return _clip().direction(images[pair.input], images[pair.target], before, after)


def _clip_image(evidence: Evidence) -> float | None:
    images, pair = evidence.seen.clip, evidence.pair
    return _clip().similarity(images[pair.input], images[pair.target])


METRICS = (
    Metric(
        "clip_text_input",
        "CLIP similarity of I and the input caption",
        "clip",
        _clip_text_input,
        COSINE,
        sense="more",
    ),
    Metric(
        "clip_text_output",
        "CLIP similarity of Tar and the output caption",
        "clip",
        _clip_text_output,
        COSINE,
        sense="more",
    ),
    Metric(
        "clip_direction",
        "CLIP similarity of the change of the pictures and the change of the captions",
        "clip",
        _clip_direction,
        COSINE,
        sense="more",
    ),
    Metric("clip_image", "CLIP similarity of I and Tar", "clip", _clip_image, COSINE),
)
