"""What the families of transformers with joint attention, over text and picture, have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Protocol, Self

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch.nn import functional

from stages.models.diffusion.families.base import Transformer
from stages.models.diffusion.families.flux_files import PATCH
from stages.models.diffusion.families.masks import masked_keys, seeing
from stages.models.diffusion.prompts import Segment


class JointCore(Protocol):
    """Computes one joint attention, over text and picture."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_tokens: int
    ) -> torch.Tensor:
        """The output for heads [R,heads,T+N,D], after their norms and rotary embeddings.

        The first ``text_tokens`` are text, the others are the picture's, row by row.
        """
        ...


def plain_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_tokens: int
) -> torch.Tensor:
    """A :class:`JointCore` without any control."""
    return functional.scaled_dot_product_attention(query, key, value)


class JointPrompts:
    """Text encoders that read a fixed number of tokens, padding included.

    Attributes:
        device: the encoders'.
        tokenizer: of the encoder that reads most of a prompt.
        context_length: how many tokens that encoder reads.
    """

    device: torch.device
    tokenizer: Any
    context_length: int

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The parts of a prompt's states, in order."""
        return (Segment(self.tokenizer, self.context_length),)

    def fits(self, prompt: str) -> bool:
        """Whether the encoder that reads most of a prompt reads all of it."""
        return len(self.tokenizer(prompt, truncation=False).input_ids) <= self.context_length

    def _ids(self, tokenizer: Any, prompts: list[str], length: int) -> torch.Tensor:
        """The tokens of prompts, filled up or cut to a length, int64 [n,length]."""
        encoded = tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return encoded.input_ids.to(self.device)


@dataclass(frozen=True)
class Stream:
    """What goes from block to block.

    Attributes:
        text: states [R,T,C]; None after a last block that does not compute them.
        picture: states [R,L,C] of any tokens of the pictures, the same of every row.
        modulation: what a row's time and conditions make [R,C].
        rotary: tables over the tokens of text and picture, each [T+L,D] or, of each row, [R,T+L,D].
        seen: which tokens of the text are attended [R,T]; None: all.
    """

    text: torch.Tensor | None
    picture: torch.Tensor
    modulation: torch.Tensor
    rotary: tuple[torch.Tensor, ...] = ()
    seen: torch.Tensor | None = None

    def at(self, tokens: torch.Tensor) -> Self:
        """That at some of the picture's tokens, int64 [l]; before the first block."""
        assert self.text is not None
        words = torch.arange(self.text.shape[1], device=tokens.device)
        kept = torch.cat([words, len(words) + tokens])
        return replace(
            self,
            picture=self.picture.index_select(1, tokens),
            rotary=tuple(table.index_select(-2, kept) for table in self.rotary),
        )


class JointNetwork(Transformer):
    """A transformer with a U-Net's call, which can also be computed block by block.

    A family's network has ``blocks``, ``begin``, ``through``, ``end``, ``unpack`` and ``install``.
    """

    def forward(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> SimpleNamespace:
        """The velocity for latents [R,c,h,w].

        Args:
            timestep: 0 to 1000, of all rows.
            states: of the text [R,T,d].
            timestep_cond: the guidance scale of each row [R]; None for a model that is not told.
            added_cond_kwargs: ``pooled``, CLIP's [R,p], or ``mask`` of the text's tokens [R,T], by family.
        """
        assert added_cond_kwargs is not None
        stream = self.begin(rows, timestep, states, timestep_cond, added_cond_kwargs)
        for block in self.blocks:
            stream = self.through(block, stream)
        return SimpleNamespace(sample=self.unpack(self.end(stream), (rows.shape[2], rows.shape[3])))


def packed(latents: torch.Tensor) -> torch.Tensor:
    """Latents [R,c,h,w] as tokens of 2 x 2 of them [R,N,4c], row by row."""
    return functional.pixel_unshuffle(latents, PATCH).flatten(2).transpose(1, 2)


class PackedNetwork(JointNetwork):
    """A transformer whose tokens are patches of 2 x 2 latents; latents stay spatial outside."""

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the tokens of latents of a size."""
        return size[0] // PATCH, size[1] // PATCH

    def pack(self, rows: torch.Tensor) -> torch.Tensor:
        """Latents [R,c,h,w] as tokens [R,N,4c], row by row."""
        return packed(rows)

    def unpack(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [R,N,4c] as latents [R,c,h,w] of a size."""
        return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, self.grid(size)), PATCH)


def attend_masked(
    core: JointCore, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor
) -> torch.Tensor:
    """The output [R,L,heads * D] of a core for heads [R,heads,L,D] whose first T tokens have a mask [R,T]."""
    width, text_tokens = value.shape[-1], seen.shape[1]
    key = masked_keys(key, functional.pad(seen, (0, key.shape[2] - text_tokens), value=1))
    # A core scales by the width of what it gets, and fused kernels want values as wide as keys.
    wider = key.shape[-1]
    query = seeing(query * (wider / width) ** 0.5, wider**-0.5)
    value = functional.pad(value, (0, wider - width))
    return core(query, key, value, text_tokens)[..., :width].transpose(1, 2).flatten(2)


def even_levels(config: Mapping[str, Any], steps: int, tokens: int) -> Mapping[str, Any]:
    """The arguments of a flow scheduler's ``set_timesteps``, for even levels that it then shifts.

    Args:
        config: the scheduler's.
        steps: number of steps.
        tokens: of the picture, on which the shift depends.
    """
    return {
        "sigmas": np.linspace(1.0, 1 / steps, steps),
        "mu": dynamic_shift(config, tokens, max_shift=1.15),
    }


def dynamic_shift(config: Mapping[str, Any], tokens: int, max_shift: float) -> float:
    """How far a flow scheduler shifts its noise levels for a picture of so many tokens.

    Args:
        config: the scheduler's.
        tokens: of the picture.
        max_shift: the pipeline's default for ``config["max_shift"]``.
    """
    return calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", max_shift),
    )
