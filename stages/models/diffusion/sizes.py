"""The keys of the manifest's section ``diffusion`` that say how large pictures are."""

from typing import Annotated, ClassVar

from pydantic import Field, Strict, model_validator
from typing_extensions import Self

from stages.candidate import Several
from stages.section import Section

Pixels = Annotated[int, Field(ge=8, le=8192)]
Size = Annotated[tuple[Pixels, Pixels], Strict(False)]
"""Height and width."""


class PictureSizes(Section):
    """One size, several, or the model's own."""

    implied: ClassVar = {"height": None, "width": None, "buckets": ()}

    height: int | None = Field(None, ge=8, le=8192, description="pixels; by default the model's own")
    width: int | None = Field(None, ge=8, le=8192, description="pixels; by default the model's own")
    buckets: Several[Size] = Field(
        (), description="sizes [height, width] instead of one; a row's seed chooses its own"
    )

    @model_validator(mode="after")
    def _one_kind_of_size(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError("diffusion.height and diffusion.width: set both or neither")
        if self.buckets and self.height is not None:
            raise ValueError("diffusion.buckets are sizes instead of height and width: take one of them out")
        return self

    @property
    def sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """The sizes (height, width) of pictures in pixels; None is the model's own, a square."""
        if self.buckets:
            return self.buckets
        return (None if self.height is None or self.width is None else (self.height, self.width),)
