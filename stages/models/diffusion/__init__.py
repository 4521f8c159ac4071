"""The manifest section of the text-to-image model that draws both pictures of a pair."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict, field_validator, model_validator
from typing_extensions import Self

from stages.base import Weights
from stages.candidate import MOST_STEPS, GuidanceScale, Several
from stages.seeds import shape_of

SAMPLERS = ("ddim", "euler", "euler_ancestral", "lcm", "flow_euler")

Pixels = Annotated[int, Field(ge=8, le=8192)]
Size = Annotated[tuple[Pixels, Pixels], Strict(False)]
"""Height and width."""


class DiffusionConfig(Weights):
    """A diffusers pipeline (:mod:`stages.models.diffusion.families`), and its sampling settings."""

    implied: ClassVar = {
        "negative_prompt": "",
        "height": None,
        "width": None,
        "buckets": (),
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
    height: int | None = Field(None, ge=8, le=8192, description="pixels; by default the model's own")
    width: int | None = Field(None, ge=8, le=8192, description="pixels; by default the model's own")
    buckets: Several[Size] = Field(
        (), description="sizes [height, width] instead of one; a row's seed chooses its own"
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

    @model_validator(mode="after")
    def _one_kind_of_size(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("diffusion.height and diffusion.width: set both or neither")
        if self.buckets and self.height is not None:
            raise ValueError("diffusion.buckets are sizes instead of height and width: take one of them out")
        return self

    @property
    def halved(self) -> bool:
        """Whether the weights themselves are loaded in half precision."""
        return self.dtype != "float32"

    @property
    def sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """The sizes (height, width) of pictures in pixels; None is the model's own."""
        if self.buckets:
            return self.buckets
        return (None if self.height is None or self.width is None else (self.height, self.width),)

    def size_of(self, seed: int) -> tuple[int, int] | None:
        """The size of the row with this seed; None is the model's own."""
        return self.sizes[shape_of(seed, len(self.sizes))]
