"""What the families of transformers with joint attention, over text and picture, have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import nn

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
        rotary: tables over the tokens of text and picture, each [T+L,D]; None for a network without.
    """

    text: torch.Tensor | None
    picture: torch.Tensor
    modulation: torch.Tensor
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None

    def at(self, tokens: torch.Tensor) -> "Stream":
        """That at some of the picture's tokens, int64 [l]; before the first block."""
        assert self.text is not None
        rotary = self.rotary
        if rotary is not None:
            words = torch.arange(self.text.shape[1], device=tokens.device)
            kept = torch.cat([words, len(words) + tokens])
            rotary = rotary[0][kept], rotary[1][kept]
        return Stream(self.text, self.picture.index_select(1, tokens), self.modulation, rotary)


class JointNetwork(nn.Module):
    """A transformer with a U-Net's call, which can also be computed block by block.

    A family's network has ``blocks``, ``begin``, ``through``, ``end``, ``unpack`` and ``install``.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

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
            added_cond_kwargs: ``pooled``, CLIP's [R,p].
        """
        assert added_cond_kwargs is not None
        stream = self.begin(rows, timestep, states, timestep_cond, added_cond_kwargs)
        for block in self.blocks:
            stream = self.through(block, stream)
        return SimpleNamespace(sample=self.unpack(self.end(stream), (rows.shape[2], rows.shape[3])))

    @property
    def config(self) -> Any:
        """The transformer's configuration."""
        return self.transformer.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self.transformer.dtype


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
