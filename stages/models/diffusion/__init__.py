"""The manifest section of the text-to-image model that draws both pictures of a pair."""

from typing import Literal

from pydantic import Field, field_validator

from stages.base import Weights
from stages.candidate import MOST_STEPS, GuidanceScale

SAMPLERS = ("ddim", "euler", "euler_ancestral", "lcm")


class DiffusionConfig(Weights):
    """A diffusers pipeline of the Stable Diffusion or SDXL family, and its sampling settings."""

    sampler: str = Field("ddim", description=", ".join(SAMPLERS))
    steps: int = Field(50, ge=1, le=MOST_STEPS, description="denoising steps")
    guidance_scale: GuidanceScale = Field(7.5, description="classifier-free guidance; off up to 1")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    compile: bool = Field(
        False, description="torch.compile the U-Net: takes a minute or more at each worker's start"
    )

    @field_validator("sampler")
    @classmethod
    def _first_order(cls, sampler: str) -> str:
        if sampler not in SAMPLERS:
            raise ValueError(
                f"{sampler!r} is none of {', '.join(SAMPLERS)}. Multistep solvers (DPM-Solver++, UniPC, "
                "PNDM) keep earlier predictions between their steps, and fusing an edit's latents with its "
                "source's does not reach these"
            )
        return sampler
