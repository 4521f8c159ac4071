"""The instrument for ``count_error``: objects counted by the detector in both pictures."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torchvision.ops import nms

from stages.measure.instrument import Values, suits
from stages.score.evidence import Row
from stages.score.metric import Scores
from stages.tasks import Task

if TYPE_CHECKING:
    from stages.models.grounding.detector import Detections, Detector

SAME = 0.5
"""Boxes with a larger IoU are one object."""


def asked_changes(task: Task) -> dict[str, int]:
    """By how many objects a task changes a picture, for each field with a phrase: +1, -1 or 0 per object.

    ``edited_object`` of ``remove`` names what is removed, and of ``background`` a place, which is not
    counted.
    """
    fields = task.fields
    if task.region == "background":
        return {"original_object": 0}
    if fields.edited_object == "not_in_output":
        return {"edited_object": -1}
    changes = {"edited_object": 1} if fields.edited_object == "in_output" else {}
    return changes | ({"original_object": -1} if fields.original_object == "in_input" else {})


class Counts:
    """Counts the named objects in I and in Tar.

    With n grounded boxes the task changes n objects. The error is the sum over the phrases of ``|n(Tar) -
    n(I) - asked|``. A phrase with a word that the detector does not know cannot be counted.
    """

    def __init__(self, detector: "Detector") -> None:
        self.detector = detector

    def measure(self, rows: Sequence[Row], batch: int) -> Values:
        queries = [
            (number, phrase, picture)
            for number, row in enumerate(rows)
            if suits(row, "count_error")
            for phrase in dict.fromkeys(_phrases(row))
            for picture in range(len(row.images))
        ]
        images = [rows[number].images[picture] for number, _, picture in queries]
        found = self.detector.find(images, [phrase for _, phrase, _ in queries], batch)
        counted = {query: objects(detections) for query, detections in zip(queries, found, strict=True)}
        return [
            [_error(row, number, place, counted) for place in range(len(row.pairs))]
            for number, row in enumerate(rows)
        ]


def objects(found: "Detections") -> float | None:
    """The number of objects found for a phrase; NaN if the detector's output is not finite.

    None for a phrase with a word that the detector does not know.
    """
    if found.unknown:
        return None
    if math.isnan(found.best_score):
        return math.nan
    return len(nms(torch.from_numpy(found.boxes), torch.from_numpy(found.scores), SAME))


def _phrases(row: Row) -> list[str]:
    return [phrase for field in asked_changes(row.task) if (phrase := (row.record[field] or "").strip())]


def _error(row: Row, number: int, place: int, counted: dict[tuple[int, str, int], float | None]) -> Scores:
    if not suits(row, "count_error"):
        return {}
    pair, boxes, total = row.pairs[place], len(row.region.boxes), 0.0
    for field, change in asked_changes(row.task).items():
        phrase = (row.record[field] or "").strip()
        before, after = (counted.get((number, phrase, k)) for k in (pair.input, pair.target))
        if before is None or after is None:
            return {}
        total += abs(after - before - change * boxes)
    return {"count_error": total}
