"""The instrument for ``region_text`` and ``region_direction``: CLIP on the pictures, cut to the edit."""

from collections.abc import Sequence

import numpy as np

from stages.measure.instrument import Values, suits
from stages.models.clip import Clip, direction, similarity
from stages.pictures.crop import square_around
from stages.score.evidence import Row
from stages.score.metric import Scores
from stages.tasks import Task

MARGIN = 0.25
"""What a cut shows around the edit on each side, as a fraction of the longer side of the edit."""


def words_for(task: Task) -> tuple[str, str]:
    """The fields with the words for what the edited place shows, in I and in Tar.

    Where an object is taken away or does not exist yet, these are the surroundings.
    """
    if task.fields.edited_object == "not_in_output":
        return "original_object", "surroundings"
    before = "original_object" if task.fields.original_object == "in_input" else "surroundings"
    return before, "edited_object"


class Regions:
    """Compares the cut pictures with the words for what the place shows before and after."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def measure(self, rows: Sequence[Row], batch: int) -> Values:
        cuts = [_cuts(row) for row in rows]
        embeddings = self._encode([image for of_row in cuts for image in of_row], batch)
        pictures = np.split(embeddings, np.cumsum([len(of_row) for of_row in cuts])[:-1])
        texts = self._texts(rows, batch)
        return [_of_row(row, found, texts) for row, found in zip(rows, pictures, strict=True)]

    def _encode(self, images: list[np.ndarray], batch: int) -> np.ndarray:
        return self.clip.encode_images(images, batch) if images else np.zeros((0, 1), np.float32)

    def _texts(self, rows: Sequence[Row], batch: int) -> dict[str, np.ndarray]:
        """Embeddings by phrase, for phrases in which CLIP knows every word."""
        fields = ((row, field) for row in rows if suits(row, "region_text") for field in words_for(row.task))
        phrases = list(dict.fromkeys(text for row, field in fields if (text := _words(row, field))))
        known = [phrase for phrase in phrases if self.clip.knows(phrase)]
        return dict(zip(known, self.clip.encode_texts(known, batch), strict=True)) if known else {}


def _words(row: Row, field: str) -> str:
    return (row.record[field] or "").strip()


def _cuts(row: Row) -> list[np.ndarray]:
    """The row's pictures, cut to the edit; none if it has no place."""
    place = square_around(row.region, MARGIN) if suits(row, "region_text") else None
    return [] if place is None else [image[place] for image in row.images]


def _of_row(row: Row, pictures: np.ndarray, texts: dict[str, np.ndarray]) -> list[Scores]:
    if not len(pictures):
        return [{} for _ in row.pairs]
    before, after = (texts.get(_words(row, field)) for field in words_for(row.task))
    found: list[Scores] = []
    for pair in row.pairs:
        i, tar = pictures[pair.input], pictures[pair.target]
        told = None if after is None else similarity(tar, after)
        turned = None if before is None or after is None else direction(i, tar, before, after)
        found.append({"region_text": told, "region_direction": turned})
    return found
