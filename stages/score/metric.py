"""The definition of a metric: name, meaning, model, computation and range."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from stages.score.evidence import Evidence, Look
from stages.tasks import Task

Need = Literal[
    "pictures",
    "clip",
    "detector",
    "dino",
    "depth",
    "ocr",
    "aesthetic",
    "nsfw",
    "measure.seam",
    "measure.counts",
    "measure.region_clip",
    "measure.lpips",
    "measure.dino",
    "judge",
]
"""A metric's model, by its key in the section ``score``. ``pictures``: none. ``detector``: ``grounding``.
``measure.*``: a key of the section ``measure``. ``judge``: the model of the section ``judge``."""
OPTIONAL: Mapping[Need, str] = {
    "dino": "score.dino",
    "depth": "score.depth",
    "ocr": "score.ocr",
    "aesthetic": "score.aesthetic",
    "nsfw": "score.nsfw",
    "measure.seam": "measure.seam",
    "measure.counts": "measure.counts",
    "measure.region_clip": "measure.region_clip",
    "measure.lpips": "measure.lpips",
    "measure.dino": "measure.dino",
}
"""What a manifest may leave out, with the key that turns it on."""
Sense = Literal["more", "less", "unknown"]
"""Whether a greater value speaks for a right pair (``more``), against it (``less``), or neither."""
Scores = Mapping[str, float | None]
"""The scores of one candidate by metric; None for a metric that does not apply."""
FRACTION, COSINE, NONNEGATIVE, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
MARK = (1.0, 5.0)
"""Ranges of values."""


def _nothing_sought(task: Task) -> Look | None:
    return None


def _suits(task: Task) -> str:
    return ""


@dataclass(frozen=True)
class Metric:
    """A measure of one quality of a candidate; null if it does not apply."""

    name: str
    meaning: str
    needs: Need
    compute: Callable[[Evidence], float | None]
    """The value for one candidate; None if it cannot be measured, or another stage measures it."""
    range: tuple[float, float] = FRACTION
    """The lowest and the highest possible value."""
    sense: Sense = "unknown"
    """What a greater value says, all else equal. A calibrated filter follows it."""
    guard: bool = False
    """Whether its bounds stay in force beside a calibrated filter.

    It finds faults that candidates hardly have, so verdicts about candidates say little of it."""
    backward: bool = False
    """Whether it measures the pair backwards, from Tar to I. Its bounds decide about ``T_inverse`` alone."""
    look: Callable[[Task], Look | None] = _nothing_sought
    """The question to the detector for a task; None: no question."""
    unsuited: Callable[[Task], str] = _suits
    """Why a task cannot list the metric; empty if it can."""

    @property
    def optional(self) -> bool:
        """Whether the metric is null unless the manifest turns it on.

        A missing value of any other metric could not be measured and violates a bound.
        """
        return self.needs in OPTIONAL


def needs_boxes(task: Task) -> str:
    """``Metric.unsuited`` for metrics of the grounded boxes."""
    return "needs boxes: ground an object" if task.ground == "none" else ""
