"""The manifest's section ``edit``."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import Section, StageConfig, Weights
from stages.candidate import GuidanceScale, Several
from stages.models.diffusion import DiffusionConfig
from stages.pictures.pixel_threshold import ALPHA, KERNEL
from stages.tasks import Candidate


class PixelThreshold(Section):
    """Settings of :func:`stages.pictures.pixel_threshold.keep_unchanged`."""

    alpha: float = Field(ALPHA, ge=0, le=3, description="a smaller change (RGB sum) keeps the old pixel")
    kernel: float = Field(
        KERNEL,
        ge=0,
        le=0.5,
        description="side of the averaged neighbourhood, as a fraction of the picture's shorter side",
    )
    mode: Literal["candidate", "always"] = Field(
        "candidate",
        description="candidate: a second version of every candidate, between which the filter chooses; "
        "always: this version alone, as in Emu Edit",
    )


class EditConfig(StageConfig):
    """The manifest's section ``edit``."""

    implied: ClassVar = {"region": "whole", "region_halo": 1 / 16, "source_guidance": 1, "skip": 0}

    diffusion: DiffusionConfig
    self_max_tokens: int = Field(
        256,
        ge=1,
        le=1 << 16,
        description="self-attention is controlled in layers of at most so many tokens, "
        "in a picture of the model's own size",
    )
    candidates: Mapping[str, Several[Candidate]] = Field(
        {}, description="by task: candidates that replace the task file's"
    )
    rounds: Mapping[str, Annotated[Several[Several[Candidate]], Field(min_length=1)]] = Field(
        {},
        description="by task: the candidates of round 2, 3, ...; other tasks vary those of the first round",
    )
    mask_attention: bool = Field(True, description="whether the soft mask also mixes attention outputs")
    fusion: Literal["schedule", "power", "lerp", "none"] = Field(
        "schedule",
        description="how the soft mask ties the latents to the source's",
    )
    region: Literal["whole", "support", "schedule"] = Field(
        "whole",
        description="where an edit is computed: the whole picture; where its mask is above 0; or, in each "
        "step, where the fusion frees it. Elsewhere it reads its source's activations, which is faster",
    )
    region_halo: float = Field(
        1 / 16,
        ge=0,
        le=0.5,
        description="what is computed around that region too, as a fraction of the picture's shorter side",
    )
    blend_tokens: int = Field(
        256,
        ge=1,
        le=1 << 16,
        description="LocalBlend uses the cross-attention layers with so many tokens, "
        "in a picture of the model's own size",
    )
    source_guidance: GuidanceScale = Field(
        1.0,
        description="with captions.picture: classifier-free guidance of the picture's own row",
    )
    skip: float = Field(
        0,
        ge=0,
        lt=1,
        description="with captions.picture: the fraction of the steps that is left out at the beginning; an "
        "edit then stays nearer to its picture",
    )
    pixel_threshold: PixelThreshold | None = Field(
        None, description="restores the pixels that an edit hardly changed; for sessions"
    )
    depth: Weights | None = Field(None, description="a depth model of transformers; for depth and normal")
    pose: Weights | None = Field(None, description="a VitPose model of transformers; for pose")

    @model_validator(mode="after")
    def _compiled_whole(self) -> Self:
        if self.region != "whole" and self.diffusion.compile:
            raise ValueError(
                f"edit.region: {self.region} takes the U-Net's layers apart, so it cannot be compiled: set "
                "diffusion.compile: false, or edit.region: whole"
            )
        return self
