"""What metrics are computed from: a row's decoded pictures, and what the models saw in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stages.pair import EditPair, as_pair
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
    """A question to the detector: the field of the answer that has the phrase, and the picture to look in."""

    field: Literal["original_object", "edited_object"]
    side: Side


@dataclass(frozen=True)
class Row:
    """A row with its pictures decoded: the anchor, then the candidates."""

    task: Task
    record: Mapping[str, Any]

    @cached_property
    def images(self) -> list[np.ndarray]:
        encoded = [self.record["anchor"], *(c["image"] for c in self.record["candidates"])]
        return [decode_rgb(image) for image in encoded]

    @cached_property
    def pairs(self) -> list[EditPair[int]]:
        """A pair a candidate; its pictures are indices into ``images``."""
        captions = self.record["caption"], self.record["output_caption"]
        return [as_pair(self.task, 0, k, *captions) for k in range(1, len(self.images))]

    @cached_property
    def region(self) -> Region:
        return Region.from_row(self.record)

    @cached_property
    def metric_regions(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Where the edit is, and where nothing may change: bool [h,w]."""
        return self.region.metric_regions(self.task.region)

    @property
    def written(self) -> str:
        """What is to be read where text was written; empty where the task writes none."""
        if "text_read" not in self.task.metrics:
            return ""
        return new_text(self.record["edited_object"], self.record["instruction"])

    def phrase(self, look: Look | None) -> str:
        """What a question to the detector asks for; empty if the row has no such phrase."""
        return (self.record[look.field] or "") if look else ""


@dataclass(frozen=True, eq=False)
class Seen:
    """What the models saw in a row's pictures. Lists are in the order of ``Row.images``."""

    clip: np.ndarray
    """CLIP's embeddings, float [images,d]."""
    texts: Mapping[str, np.ndarray]
    """CLIP's embeddings by caption, of those that CLIP knows all words of."""
    detections: Mapping[tuple[str, int], "Detections"] = field(default_factory=dict)
    """By phrase and picture, of phrases that the detector knows all words of."""
    dino: Sequence[np.ndarray] | None = None
    depth: Sequence[np.ndarray] | None = None
    read: Sequence[float] | None = None
    """How near the text in the first box is to what it should say, in [0,1]."""
    probed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By the probe's key in the section ``score``."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A pair of a row's anchor and one of its candidates: all that a metric may be computed from."""

    row: Row
    seen: Seen
    place: int
    """Of the candidate."""

    @property
    def task(self) -> Task:
        return self.row.task

    @property
    def pair(self) -> EditPair[int]:
        """Its pictures are indices into ``Row.images``."""
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
        """Where the grounded boxes are, bool [h,w]."""
        return fill_boxes(self.row.region.boxes, self.inside.shape) > 0

    def detected(self, look: Look | None) -> "Detections | None":
        """What the detector found; None where it could not be asked."""
        if look is None:
            return None
        return self.seen.detections.get((self.row.phrase(look), getattr(self.pair, look.side)))

    def probed(self, probe: str) -> tuple[float, float] | None:
        """What a probe of CLIP's embeddings says of both pictures; None where the manifest names none."""
        scores = self.seen.probed.get(probe)
        return (scores[self.pair.input], scores[self.pair.target]) if scores is not None else None
