"""What a metric is: its name, its meaning, its range, what it needs and how it is computed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from stages.score.evidence import Evidence, Look
from stages.tasks import Task

Need = Literal["pictures", "clip", "detector", "dino", "depth", "ocr", "aesthetic", "nsfw"]
"""A model, by its key in the section ``score``; ``pictures``: none. ``detector`` is ``score.grounding``."""
OPTIONAL_MODELS = ("dino", "depth", "ocr", "aesthetic", "nsfw")
"""Those that a manifest may leave out."""
Scores = Mapping[str, float | None]
"""The scores of one candidate by metric; None for a metric that does not apply."""
FRACTION, COSINE, NONNEGATIVE, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
"""Ranges."""


def _nothing_sought(task: Task) -> Look | None:
    return None


def _suits(task: Task) -> str:
    return ""


@dataclass(frozen=True)
class Metric:
    """How good a candidate is in one respect; null where it does not apply."""

    name: str
    meaning: str
    needs: Need
    compute: Callable[[Evidence], float | None]
    """None where it cannot be measured."""
    range: tuple[float, float] = FRACTION
    """The least and the greatest value that it can have."""
    look: Callable[[Task], Look | None] = _nothing_sought
    """What the detector is asked for it, by task."""
    unsuited: Callable[[Task], str] = _suits
    """What a task would need in order to list it; empty if nothing."""

    @property
    def optional(self) -> bool:
        """Whether it is null where the section ``score`` names no model for it. Of the others, one that a
        task lists and a row lacks could not be measured: a bound on it is broken."""
        return self.needs in OPTIONAL_MODELS


def needs_boxes(task: Task) -> str:
    """``Metric.unsuited`` of one that is about the grounded boxes."""
    return "needs boxes: ground an object" if task.ground == "none" else ""
