"""Z-Image's transformer on whole batches.

diffusers' forward takes lists of pictures and captions of any lengths. Here all rows have one picture size
and one number of text tokens, of which each row sees its own. Layers are diffusers' own.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.models.diffusion.families.joint import (
    JointCore,
    PackedNetwork,
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


class ZImageBlock(nn.Module):
    """A block of the transformer with its states in two parts.

    The first part, "text", has also the padding of the picture: neither is a place in the picture.
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
            timestep_cond: not used; other families are told their guidance by it.
            added_cond_kwargs: ``mask``, the kinds of the text's tokens [R,T]: READ, LEARNED or 0.
        """
        assert added_cond_kwargs is not None
        net, kinds, size = self.transformer, added_cond_kwargs["mask"], self.grid(rows.shape[-2:])
        seen = kinds > 0
        clock = ((1000 - timestep) / 1000 * net.t_scale).expand(len(rows))
        time = net.t_embedder(clock).type_as(rows)
        picture = net.all_x_embedder[_KIND](self.pack(rows))
        padding = net.x_pad_token.expand(len(rows), -picture.shape[1] % MULTIPLE, -1)
        turned = self._of_picture(size, seen.sum(1))
        unturned = self._rotations(turned.new_zeros(padding.shape[1], 3, dtype=torch.long)).expand(
            len(rows), -1, -1
        )
        attended = seen.new_ones(padding.shape[:2])
        for refiner in self.refiners:
            rotations = torch.cat([unturned, turned], 1)
            padding, picture = refiner(padding, picture, attended, rotations, time)
        text = torch.where(kinds[..., None] == LEARNED, net.cap_pad_token, net.cap_embedder(states))
        of_text = self._of_text(text.shape[1], text.device)
        for layer in net.context_refiner:
            text = layer(text, seen, of_text)
        rotations = torch.cat([of_text.expand(len(rows), -1, -1), unturned, turned], 1)
        text, seen = torch.cat([text, padding], 1), torch.cat([seen, attended], 1)
        for layer in self.layers:
            text, picture = layer(text, picture, seen, rotations, time)
        drawn = net.all_final_layer[_KIND](picture, c=time)
        return SimpleNamespace(sample=-self.unpack(drawn, (rows.shape[2], rows.shape[3])))

    def pack(self, rows: torch.Tensor) -> torch.Tensor:
        """Latents [R,c,h,w] as tokens [R,N,4c], row by row; a token's channels are its last axis here."""
        tokens = super().pack(rows)
        return tokens.unflatten(2, (rows.shape[1], -1)).transpose(2, 3).flatten(2)

    def unpack(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Tokens [R,N,4c] as latents [R,c,h,w] of a size."""
        return super().unpack(tokens.unflatten(2, (self.patch**2, -1)).transpose(2, 3).flatten(2), size)

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
