"""The manifest's section ``edit``."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import StageConfig, Weights
from stages.candidate import Blocks, GuidanceScale, Several
from stages.edit.threshold import PixelThreshold
from stages.models.diffusion import DiffusionConfig
from stages.models.editors import EditorConfig
from stages.tasks import Candidate

Kind = Literal["qk", "p2p", "kv"]
"""What an edit takes from its source's joint attention (:mod:`stages.edit.prompt_to_prompt.joint`)."""


def _cheap_candidates(section: Mapping[str, Any]) -> int:
    """The default: whole edits are never cheap, and their runs keep their fingerprints."""
    return 1 if section.get("region", "whole") == "whole" else 4


class EditConfig(StageConfig):
    """The manifest's section ``edit``."""

    implied: ClassVar = {
        "region": "whole",
        "region_halo": 1 / 16,
        "cheap_candidates": 1,
        "hold": "none",
        "control": None,
        "blocks": 1,
        "source_guidance": 1,
        "skip": 0,
        "editor": None,
    }

    diffusion: DiffusionConfig
    control: Kind | None = Field(
        None,
        description="what an edit takes from its source's joint attention: qk: queries and keys of the "
        "picture; p2p: Prompt-to-Prompt's maps; kv: keys and values of the picture. None: qk for "
        "transformers; U-Nets have p2p alone",
    )
    blocks: Blocks = Field(
        1.0,
        description="the blocks of a transformer that are controlled: a fraction, so many of the first "
        "ones, or a list of their numbers from 0",
    )
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
        "step, where the fusion frees it. Elsewhere it reads its source's activations, which is faster. "
        "For transformers whole, or schedule with hold: exact",
    )
    region_halo: float = Field(
        1 / 16,
        ge=0,
        le=0.5,
        description="what is computed around that region too, as a fraction of the picture's shorter "
        "side; for U-Nets",
    )
    cheap_candidates: int = Field(
        default_factory=_cheap_candidates,
        ge=1,
        le=16,
        description="with a region, by default 4: a row draws so many candidates, its task's and those of "
        "the next rounds, if together they cost less than one whole edit; 1: never more than its task's",
    )
    hold: Literal["none", "exact"] = Field(
        "none",
        description="exact: what the fusion keeps at the source's is the source's in every block too; for "
        "transformers, with mask_attention: false",
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
    editor: EditorConfig | None = Field(
        None, description="a model that edits by instructions; for tasks of method editor"
    )
    depth: Weights | None = Field(None, description="a depth model of transformers; for depth and normal")
    pose: Weights | None = Field(None, description="a VitPose model of transformers; for pose")

    @model_validator(mode="after")
    def _one_hold(self) -> Self:
        if self.hold == "exact" and (self.mask_attention or self.fusion != "schedule"):
            raise ValueError(
                "edit.hold: exact takes the place of mask_attention and follows the fusion's schedule: set "
                "mask_attention: false, fusion: schedule"
            )
        return self

    @model_validator(mode="after")
    def _cheap_in_a_region(self) -> Self:
        if self.cheap_candidates > 1 and self.region == "whole":
            raise ValueError(
                "edit.cheap_candidates: no whole edit is cheap, only one that is computed in its region: set "
                "edit.region: schedule, or take the key out"
            )
        return self

    @model_validator(mode="after")
    def _compiled_without_hold(self) -> Self:
        if self.hold != "none" and self.diffusion.compile:
            raise ValueError(
                f"edit.hold: {self.hold} takes the network's layers apart, so it cannot be compiled: set "
                "diffusion.compile: false, or edit.hold: none"
            )
        return self
