"""The text-to-image model that draws both pictures of a pair: its section of the manifest."""

from typing import Literal

from pydantic import Field

from stages.base import Weights


class DiffusionConfig(Weights):
    """A diffusers Stable Diffusion pipeline folder, and how it is sampled."""

    steps: int = Field(50, ge=1, description="denoising steps")
    guidance_scale: float = Field(7.5, ge=1, description="classifier-free guidance; 1 turns it off")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
