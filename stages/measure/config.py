"""The manifest's section ``measure``."""

from pydantic import Field

from stages.base import StageConfig, Weights
from stages.models.config import ClipConfig
from stages.models.grounding import GroundingConfig


class MeasureConfig(StageConfig):
    """The manifest's section ``measure``. Without it the stage does not run.

    Each key turns metrics on. ``batch`` is also the batch size of every model.
    """

    clip: ClipConfig
    grounding: GroundingConfig
    seam: bool = Field(False, description="the metric seam; needs no model")
    counts: bool = Field(False, description="the metric count_error, by the detector in 'grounding'")
    region_clip: bool = Field(False, description="region_text and region_direction, by the CLIP in 'clip'")
    lpips: Weights | None = Field(
        None,
        description="lpips_outside: torchvision's AlexNet or VGG16 as safetensors, a folder or a hub name",
    )
    dino: Weights | None = Field(None, description="dino_outside: a DINOv2 model of transformers")
