"""The input of metrics: a row's decoded pictures, and the models' outputs for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stages.pair import EditPair, as_pair, inverse_captions
from stages.pictures.masks import fill_boxes
from stages.pictures.png import decode_rgb
from stages.pictures.region import Region
from stages.tasks import Task
from stages.written_text import new_text

if TYPE_CHECKING:
    from stages.models.grounding.detector import Detections

Side = Literal["input", "target"]


@dataclass(frozen=True)
class Look:
    """A question to the detector: the answer's field that contains the phrase, and the picture to search."""

    field: Literal["original_object", "edited_object"]
    side: Side


@dataclass(frozen=True)
class Row:
    """A row with decoded pictures: the anchor, then the candidates."""

    task: Task
    record: Mapping[str, Any]

    @cached_property
    def images(self) -> list[np.ndarray]:
        encoded = [self.record["anchor"], *(c["image"] for c in self.record["candidates"])]
        return [decode_rgb(image) for image in encoded]

    @cached_property
    def pairs(self) -> list[EditPair[int]]:
        """One pair per candidate; its pictures are indices into ``images``."""
        captions = self.record["caption"], self.record["output_caption"]
        return [as_pair(self.task, 0, k, *captions) for k in range(1, len(self.images))]

    @property
    def backward_captions(self) -> tuple[str, ...]:
        """The captions of the pairs backwards, if a metric of the task compares them."""
        listed = "inverse_direction" in self.task.metrics
        return (inverse_captions(self.task, self.record) or ()) if listed else ()

    @cached_property
    def region(self) -> Region:
        return Region.from_row(self.record)

    @cached_property
    def metric_regions(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Where the edit is expected, and where nothing may change: bool [h,w]."""
        return self.region.metric_regions(self.task.region)

    @property
    def written(self) -> str:
        """The text that should be readable after the edit; empty if the task writes none."""
        if "text_read" not in self.task.metrics:
            return ""
        return new_text(self.record["edited_object"], self.record["instruction"])

    def phrase(self, look: Look | None) -> str:
        """The phrase of a question to the detector; empty if the row has none."""
        return (self.record[look.field] or "") if look else ""


@dataclass(frozen=True, eq=False)
class Seen:
    """The models' outputs for a row's pictures. Lists are in the order of ``Row.images``."""

    clip: np.ndarray
    """CLIP's embeddings, float [images,d]."""
    texts: Mapping[str, np.ndarray]
    """CLIP's embeddings by caption, for captions in which CLIP knows every word."""
    detections: Mapping[tuple[str, int], "Detections"] = field(default_factory=dict)
    """Detections by phrase and picture, for phrases in which the detector knows every word."""
    dino: Sequence[np.ndarray] | None = None
    depth: Sequence[np.ndarray] | None = None
    read: Sequence[float] | None = None
    """Similarity in [0,1] between the text in the first box and the wanted text."""
    probed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Values by the probe's key in the section ``score``."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A pair of a row's anchor and one candidate, with everything that a metric can use."""

    row: Row
    seen: Seen
    place: int
    """Index of the candidate."""

    @property
    def task(self) -> Task:
        return self.row.task

    @property
    def pair(self) -> EditPair[int]:
        """The pair; its pictures are indices into ``Row.images``."""
        return self.row.pairs[self.place]

    @property
    def candidate(self) -> Mapping[str, Any]:
        return self.row.record["candidates"][self.place]

    @cached_property
    def i(self) -> np.ndarray:
        """The input picture, float32 [h,w,3] in [0,1]."""
        return self.row.images[self.pair.input].astype(np.float32) / 255

    @cached_property
    def tar(self) -> np.ndarray:
        """The target picture, float32 [h,w,3] in [0,1]."""
        return self.row.images[self.pair.target].astype(np.float32) / 255

    @property
    def inside(self) -> np.ndarray:
        return self.row.metric_regions[0]

    @property
    def outside(self) -> np.ndarray | None:
        return self.row.metric_regions[1]

    @cached_property
    def frame(self) -> np.ndarray:
        """The pixels in the grounded boxes, bool [h,w]."""
        return fill_boxes(self.row.region.boxes, self.inside.shape) > 0

    def detected(self, look: Look | None) -> "Detections | None":
        """The detector's result; None if it could not be asked."""
        if look is None:
            return None
        return self.seen.detections.get((self.row.phrase(look), getattr(self.pair, look.side)))

    def probed(self, probe: str) -> tuple[float, float] | None:
        """A probe's values for both pictures; None if the manifest does not name the probe."""
        scores = self.seen.probed.get(probe)
        return (scores[self.pair.input], scores[self.pair.target]) if scores is not None else None
