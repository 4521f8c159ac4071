"""The manifest section of the text-to-image model that draws both pictures of a pair."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from stages.base import Weights
from stages.candidate import MOST_STEPS, GuidanceScale
from stages.models.diffusion.sizes import PictureSizes
from stages.seeds import shape_of

SAMPLERS = ("ddim", "euler", "euler_ancestral", "lcm", "flow_euler")


class DiffusionConfig(PictureSizes, Weights):
    """A diffusers pipeline (:mod:`stages.models.diffusion.families`), and its sampling settings."""

    implied: ClassVar = {
        **PictureSizes.implied,
        "negative_prompt": "",
        "variant": None,
        "vae_dtype": None,
        "vae_chunk": None,
        "vae_tile": None,
    }

    sampler: str = Field("ddim", description=", ".join(SAMPLERS))
    steps: int = Field(50, ge=1, le=MOST_STEPS, description="denoising steps")
    guidance_scale: GuidanceScale = Field(
        7.5, description="classifier-free guidance, off up to 1; for FLUX.1 dev what it is told"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    negative_prompt: str = Field(
        "", max_length=2000, description="what guidance leads away from; takes the empty prompt's place"
    )
    variant: str | None = Field(None, description="of the hub's files, such as fp16")
    vae_dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        None, description="the VAE's; by default as dtype, and float32 for a VAE that overflows in float16"
    )
    vae_chunk: int | None = Field(
        None, ge=1, le=10_000, description="pictures decoded in one call; by default as memory allows"
    )
    vae_tile: int | None = Field(
        None, ge=8, le=8192, description="decode in tiles of so many pixels a side, with blended seams"
    )
    compile: bool = Field(
        False, description="torch.compile the network: takes a minute or more at each worker's start"
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

    @property
    def halved(self) -> bool:
        """Whether the weights themselves are loaded in half precision."""
        return self.dtype != "float32"

    def size_of(self, seed: int) -> tuple[int, int] | None:
        """The size of the row with this seed; None is the model's own."""
        return self.sizes[shape_of(seed, len(self.sizes))]
