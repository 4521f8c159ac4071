"""A candidate: one way to draw an edit's target, listed under ``candidates`` in task files and manifests."""

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field, Strict, model_validator
from typing_extensions import Self

from stages.section import Section

Policy = Literal["soft", "precise", "smooth", "box", "none"]
Item = TypeVar("Item")
Several = Annotated[tuple[Item, ...], Strict(False)]
"""A list in a YAML file, kept as a tuple."""


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"the first of the two must not be greater: [{pair[0]:g}, {pair[1]:g}]")
    return pair


Fraction = Annotated[float, Field(ge=0, le=1)]
GuidanceScale = Annotated[float, Field(ge=0, le=100)]
Fractions = Annotated[tuple[Fraction, Fraction], Strict(False), AfterValidator(_ascending)]
GuidanceScales = Annotated[tuple[GuidanceScale, GuidanceScale], Strict(False), AfterValidator(_ascending)]
Blocks = (
    Annotated[float, Field(gt=0, le=1)]
    | Annotated[tuple[Annotated[int, Field(ge=0, le=999)], ...], Strict(False), Field(min_length=1)]
)
"""Blocks of a transformer: a fraction (so many of the first ones), or a list of their numbers from 0."""
MOST_STEPS = 1000
"""Largest number of sampling steps: the supported diffusion models are trained with 1000."""


class Candidate(Section):
    """One way to draw the target: the mask policy, and how long the source's attention is kept."""

    implied: ClassVar = {"blocks": None}

    mask: Policy = "soft"
    control: Literal["auto", "replace", "refine", "self"] = Field(
        "auto",
        description="replace: word by word; refine: aligned words; auto: replace if both captions have "
        "equally many words; self: InstructPix2Pix's, self-attention only",
    )
    cross_from: Fraction = 0.0
    cross_until: Fraction = Field(0.0, description="fraction of the steps with the source's cross-attention")
    self_from: Fraction = 0.0
    self_until: Fraction = Field(0.0, description="fraction of the steps with the source's self-attention")
    cross_steps: int | None = Field(
        None, ge=0, le=MOST_STEPS, description="a number of steps instead of a fraction, for few-step models"
    )
    self_steps: int | None = Field(None, ge=0, le=MOST_STEPS, description="the same for self-attention")
    blocks: Blocks | None = Field(
        None, description="the blocks of a transformer that are controlled; None: edit.blocks"
    )
    changed_until: Fraction | None = Field(
        None, description="cross_until for the words that only the target's caption has"
    )
    changed_weight: float = Field(1.0, ge=-100, le=100, description="factor on the attention of those words")
    blend: Fraction | None = Field(None, description="threshold of LocalBlend on the object's words")
    strength: Fractions | None = Field(
        None, description="for control self: the fraction of steps, drawn at random from this range"
    )
    guidance_scale: GuidanceScale | GuidanceScales | None = Field(
        None, description="guidance of the edit row, or a range to draw it from; None: the source's"
    )

    @model_validator(mode="after")
    def _one_control(self) -> Self:
        if (self.control == "self") != (self.strength is not None):
            raise ValueError("'strength' goes with 'control: self', which needs it")
        if self.control == "self" and (self.cross_until or self.self_until or self.blend is not None):
            raise ValueError("'control: self' has neither gates nor LocalBlend, only 'strength'")
        if self.cross_steps is not None and self.cross_until:
            raise ValueError("state cross_until or cross_steps, not both")
        if self.self_steps is not None and self.self_until:
            raise ValueError("state self_until or self_steps, not both")
        return self

    @model_validator(mode="after")
    def _gates_open_before_they_close(self) -> Self:
        for kind in ("cross", "self"):
            start, end = getattr(self, f"{kind}_from"), getattr(self, f"{kind}_until")
            if start and start >= end:
                raise ValueError(f"{kind}_from = {start:g} must be less than {kind}_until = {end:g}")
        if self.changed_until and self.changed_until <= self.cross_from:
            raise ValueError(
                f"changed_until = {self.changed_until:g} must be 0, or more than "
                f"cross_from = {self.cross_from:g}"
            )
        return self
