"""Open-vocabulary detection with GroundingDINO, shared by the mask and score stages."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from stages.base import Dtype, Weights
from stages.models.weight_files import is_of_transformers

if TYPE_CHECKING:
    from stages.models.grounding.detector import Detector


class GroundingConfig(Weights):
    """The manifest's section ``grounding``: the detector, and the thresholds for finding a phrase.

    Both thresholds apply to sigmoid scores in [0,1]. ``box_threshold`` applies to a box's best word, as in
    GroundingDINO's own inference. ``text_threshold`` applies to the mean over all words of the phrase, so "a
    blue car" is not found if only "car" fits.

    Without ``library``, a folder of ``editpairs convert`` belongs to groundingdino-py, and everything else to
    transformers.
    """

    implied: ClassVar = {"dtype": "float32"}

    library: Literal["transformers", "groundingdino"] = Field(
        default_factory=lambda found: "transformers" if is_of_transformers(found) else "groundingdino",
        description="transformers: a hub name or a folder; groundingdino: a folder of `editpairs convert`; "
        "by default as the model is",
    )
    dtype: Dtype = Field("float32", description="precision of its computations; weights stay as they are")
    box_threshold: float = Field(0.35, ge=0, le=1, description="least score of a box's best word")
    text_threshold: float = Field(0.25, ge=0, le=1, description="least mean score over the phrase's words")

    @property
    def from_hub(self) -> bool:
        return self.library == "transformers"


def load_detector(config: GroundingConfig) -> "Detector":
    """Load the detector ``config.model``.

    Raises:
        OSError: the folder or the hub model is incomplete. The message names the missing file.
    """
    if config.library == "transformers":
        from stages.models.grounding.transformers_detector import TransformersDetector

        return TransformersDetector.load(config)
    from stages.models.grounding.published_detector import PublishedDetector

    return PublishedDetector.load(config)
