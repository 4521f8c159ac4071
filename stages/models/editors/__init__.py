"""Models that edit a picture by an instruction, and the manifest section that names one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from stages.base import Dtype, Weights
from stages.candidate import MOST_STEPS, GuidanceScale

AfterStep = Callable[[int, int, Any, Any, Any], Any]
"""``after_step(step, steps, latents, known, mask)``: the latents to continue with.

``known`` are those of the picture at the same noise level, ``mask`` is M at their size. All are tensors in
the model's own layout."""


class EditorConfig(Weights):
    """An instruction-editing pipeline of diffusers, or an editor trained here, and its sampling settings."""

    dtype: Dtype = "float32"
    steps: int = Field(28, ge=1, le=MOST_STEPS, description="denoising steps")
    guidance_scale: GuidanceScale = Field(
        description="guidance by the instruction: about 7.5 for InstructPix2Pix, 2.5 for FLUX.1 Kontext, "
        "4 for Qwen-Image-Edit"
    )
    image_guidance_scale: GuidanceScale | None = Field(
        None, description="guidance by the picture, for InstructPix2Pix; None: the pipeline's own default"
    )


@dataclass(frozen=True, eq=False)
class InstructionEdit:
    """An edit that is asked for.

    Attributes:
        picture: uint8 [H,W,3].
        instruction: what to change.
        task: the name of the instruction's task, for a model that has learned tasks.
        seed: draws the noise.
        guidance_scale: guidance by the instruction.
        mask: M [H,W] in [0,1], where the edit is wanted.
    """

    picture: np.ndarray
    instruction: str
    task: str
    seed: int
    guidance_scale: float
    mask: np.ndarray


class InstructionEditor(Protocol):
    """A loaded model that edits pictures by instructions."""

    def edit(self, asked: InstructionEdit, after_step: AfterStep) -> np.ndarray:
        """The edited picture, uint8 [H,W,3].

        Args:
            asked: the edit.
            after_step: called after each denoising step, by models whose sampling can be joined.

        Raises:
            NotFiniteError: the model's picture is not finite.
        """
        ...
