"""The manifest section ``edit.pixel_threshold``."""

from typing import Literal

from pydantic import Field

from stages.base import Section
from stages.pictures.pixel_threshold import ALPHA, KERNEL


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
