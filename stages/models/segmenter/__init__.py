"""Segment Anything prompted by boxes, of segment-anything or of transformers."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stages.base import Dtype, Weights
from stages.models.weight_files import is_of_transformers

if TYPE_CHECKING:
    from stages.models.segmenter.segmenter import Segmenter


class SegmenterWeights(Weights):
    """The manifest's section ``mask.segmenter``: a SAM or SAM 2.

    Without ``library``, a folder of ``editpairs convert`` belongs to segment-anything, and everything else to
    transformers.
    """

    implied: ClassVar = {"library": "segment-anything", "dtype": "float32"}

    library: Literal["transformers", "segment-anything"] = Field(
        default_factory=lambda found: "transformers" if is_of_transformers(found) else "segment-anything",
        description="transformers: a hub name or a folder, SAM or SAM 2; segment-anything: a folder of "
        "`editpairs convert`; by default as the model is",
    )
    dtype: Dtype = Field("float32", description="precision of its computations; weights stay as they are")

    @property
    def from_hub(self) -> bool:
        return self.library == "transformers"


def load_segmenter(weights: SegmenterWeights) -> "Segmenter":
    """Load the model under ``mask.segmenter``.

    Raises:
        OSError: the folder or the hub model is incomplete. The message names the manifest key.
        ValueError: the hub model is no SAM.
    """
    if weights.library == "transformers":
        from stages.models.segmenter.transformers_segmenter import TransformersSegmenter

        return TransformersSegmenter.load(weights)
    from stages.models.segmenter.published_segmenter import PublishedSegmenter

    return PublishedSegmenter.load(weights)
