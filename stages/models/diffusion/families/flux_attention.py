"""Attention layers of FLUX.1 whose attention another part of the program computes."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb

from stages.models.diffusion.families.joint import JointCore


@dataclass
class Told:
    """What the network tells its layers: single-stream blocks do not know where the text ends."""

    text_tokens: int = 0


class FluxJointAttention:
    """Attention processor of one layer; a layer of a double-stream block gets its text apart."""

    def __init__(self, core: JointCore, told: Told) -> None:
        self.core, self.told = core, told

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """hidden_states [R,N,C] with encoder_hidden_states [R,T,C], or [R,T+N,C] without."""

        def heads_of(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (-1, attn.head_dim))

        query, key, value = (heads_of(to(hidden_states)) for to in (attn.to_q, attn.to_k, attn.to_v))
        query, key = attn.norm_q(query), attn.norm_k(key)
        if encoder_hidden_states is not None:
            projections = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            text_query, text_key, text_value = (heads_of(to(encoder_hidden_states)) for to in projections)
            query = torch.cat([attn.norm_added_q(text_query), query], 1)
            key = torch.cat([attn.norm_added_k(text_key), key], 1)
            value = torch.cat([text_value, value], 1)
        if image_rotary_emb is not None:
            query, key = (apply_rotary_emb(each, image_rotary_emb, sequence_dim=1) for each in (query, key))
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        output = self.core(query, key, value, self.told.text_tokens).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return output
        text, picture = output.tensor_split([self.told.text_tokens], 1)
        return attn.to_out[1](attn.to_out[0](picture)), attn.to_add_out(text)
