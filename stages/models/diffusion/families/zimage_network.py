"""Z-Image's transformer on whole batches.

diffusers' forward takes lists of pictures and captions of any lengths. Here all rows have one picture size
and one number of text tokens, of which each row sees its own. Layers are diffusers' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.models.diffusion.families.flux_files import PATCH
from stages.models.diffusion.families.joint import (
    JointCore,
    PackedNetwork,
    Stream,
    attend_masked,
    plain_attention,
)
from stages.models.diffusion.families.zimage_files import MULTIPLE

LEARNED, READ = 1, 2
"""Kinds of text tokens: padding by a learned token, and what the text encoder read. 0 is not attended."""
_KIND = "2-1"
"""The transformer's part for patches of 2 x 2 latents of one frame."""


class ZImageAttention:
    """Attention processor of one layer, whose attention another part of the program computes."""

    def __init__(self, core: JointCore) -> None:
        self.core = core

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None,
        attention_mask: torch.Tensor,
        freqs_cis: torch.Tensor,
    ) -> torch.Tensor:
        """hidden_states [R,T+N,C] of text and picture; which of the text are attended [R,T]; rotations."""
        query, key, value = (
            to(hidden_states).unflatten(-1, (attn.heads, -1)) for to in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = (
            _turned(each if norm is None else norm(each), freqs_cis)
            for each, norm in ((query, attn.norm_q), (key, attn.norm_k))
        )
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        return attn.to_out[1](attn.to_out[0](attend_masked(self.core, query, key, value, attention_mask)))


@dataclass(frozen=True)
class PaddedStream(Stream):
    """A stream whose text is ``words`` tokens of words, followed by the padding of the picture."""

    words: int = 0


class ZImageBlock(nn.Module):
    """A block of the transformer with its states in two parts.

    The part called text also holds the padding of the picture, which has no place in it either.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(
        self,
        text: torch.Tensor,
        picture: torch.Tensor,
        seen: torch.Tensor,
        rotations: torch.Tensor,
        time: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states of text [R,T,C], of which ``seen`` are attended [R,T], and picture [R,N,C]."""
        states = self.block(torch.cat([text, picture], 1), seen, rotations, time)
        changed, drawn = states.tensor_split([text.shape[1]], 1)
        return changed, drawn


class ZImageNetwork(PackedNetwork):
    """The transformer with a U-Net's call."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        self.refiners = nn.ModuleList(ZImageBlock(each) for each in transformer.noise_refiner)
        self.layers = nn.ModuleList(ZImageBlock(each) for each in transformer.layers)
        self.install(plain_attention)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks that see the picture, in order; each returns the states (text, picture [R,N,C]).

        The first ones see the picture alone.
        """
        return [*self.refiners, *self.layers]

    def install(self, core: JointCore) -> None:
        """Have ``core`` compute the attention of every layer that sees the picture."""
        for each in self.blocks:
            each.block.attention.set_processor(ZImageAttention(core))

    def begin(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None,
        added: Mapping[str, torch.Tensor],
    ) -> Stream:
        """What enters the first block, for latents [R,c,h,w]; it is not told its guidance.

        ``mask`` has the kinds of the text's tokens [R,T]: READ, LEARNED or 0.
        """
        net, kinds = self.transformer, added["mask"]
        clock = ((1000 - timestep) / 1000 * net.t_scale).expand(len(rows))
        seen, size = kinds > 0, self.grid((rows.shape[2], rows.shape[3]))
        picture = net.all_x_embedder[_KIND](self.pack(rows))
        padding = net.x_pad_token.expand(len(rows), -picture.shape[1] % MULTIPLE, -1)
        words = torch.where(kinds[..., None] == LEARNED, net.cap_pad_token, net.cap_embedder(states))
        of_words, of_picture = (
            self._of_text(words.shape[1], words.device),
            self._of_picture(size, seen.sum(1)),
        )
        for layer in net.context_refiner:
            words = layer(words, seen, of_words)
        of_padding = self._rotations(torch.zeros(padding.shape[1], 3, dtype=torch.long, device=rows.device))
        of_text = torch.cat([of_words, of_padding[None]], 1).expand(len(rows), -1, -1)
        return PaddedStream(
            text=torch.cat([words, padding], 1),
            picture=picture,
            modulation=net.t_embedder(clock).type_as(rows),
            rotary=(torch.cat([of_text, of_picture], 1),),
            seen=torch.cat([seen, seen.new_ones(padding.shape[:2])], 1),
            words=words.shape[1],
        )

    def through(self, block: nn.Module, stream: Stream) -> Stream:
        """What leaves a block; the first ones do not see the words."""
        assert isinstance(stream, PaddedStream)
        assert stream.text is not None
        assert stream.seen is not None
        unread = stream.words if block in self.refiners else 0
        words, text = stream.text.tensor_split([unread], 1)
        (rotations,) = stream.rotary
        text, picture = block(
            text, stream.picture, stream.seen[:, unread:], rotations[:, unread:], stream.modulation
        )
        return replace(stream, text=torch.cat([words, text], 1), picture=picture)

    def end(self, stream: Stream) -> torch.Tensor:
        """The velocity at the tokens [R,L,4c], after the last block."""
        return -self.transformer.all_final_layer[_KIND](stream.picture, c=stream.modulation)

    def pack(self, rows: torch.Tensor) -> torch.Tensor:
        """Latents [R,c,h,w] as tokens [R,N,4c], row by row; a token's channels are its last axis here."""
        tokens = super().pack(rows)
        return tokens.unflatten(2, (rows.shape[1], -1)).transpose(2, 3).flatten(2)

    def unpack(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [R,N,4c] as latents [R,c,h,w] of a size."""
        return super().unpack(tokens.unflatten(2, (PATCH**2, -1)).transpose(2, 3).flatten(2), size)

    def _rotations(self, places: torch.Tensor) -> torch.Tensor:
        """The rotary embeddings [...,D/2] of places [...,3]: in time, row, column."""
        return self.transformer.rope_embedder(places.flatten(0, -2)).unflatten(0, places.shape[:-1])

    def _of_picture(self, size: tuple[int, int], text: torch.Tensor) -> torch.Tensor:
        """Rotations of pictures of a grid [R,N,D/2], which come after so many tokens of text [R]."""
        sides = (torch.arange(side, device=text.device) for side in size)
        places = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).flatten(0, 1)
        after = (text + 1)[:, None, None].expand(-1, len(places), 1)
        return self._rotations(torch.cat([after, places.expand(len(text), -1, -1)], -1))

    def _of_text(self, tokens: int, device: torch.device) -> torch.Tensor:
        """Rotations of text [1,T,D/2], whose places begin with 1."""
        places = torch.arange(1, tokens + 1, device=device)[:, None]
        return self._rotations(functional.pad(places, (0, 2)))[None]


def _turned(heads: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Heads [R,L,heads,D] turned by rotations [R,L,D/2], in float32 as diffusers does."""
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations[:, :, None]).flatten(3).type_as(heads)
