"""Attention layers of Qwen-Image whose attention another part of the program computes."""

from typing import Any

import torch
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

from stages.models.diffusion.families.joint import JointCore, attend_masked


class QwenJointAttention:
    """Attention processor of one layer."""

    def __init__(self, core: JointCore) -> None:
        self.core = core

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor,
        attention_mask: None = None,
        *,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden_states [R,N,C] of the picture; encoder_hidden_states [R,T,C] and their mask [R,T]."""
        picture, text = image_rotary_emb
        of_text, of_picture = ("add_q_proj", "add_k_proj", "add_v_proj"), ("to_q", "to_k", "to_v")
        heads = [
            self._heads(attn, encoder_hidden_states, of_text, "norm_added", text),
            self._heads(attn, hidden_states, of_picture, "norm", picture),
        ]
        query, key, value = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(*heads, strict=True))
        output = attend_masked(self.core, query, key, value, encoder_hidden_states_mask)
        text_output, picture_output = output.tensor_split([encoder_hidden_states.shape[1]], 1)
        return attn.to_out[1](attn.to_out[0](picture_output)), attn.to_add_out(text_output)

    def _heads(
        self, attn: Any, states: torch.Tensor, projections: tuple[str, ...], norm: str, rotary: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [R,L,heads,D] of text or picture."""
        query, key, value = (getattr(attn, to)(states).unflatten(-1, (attn.heads, -1)) for to in projections)
        query, key = (
            apply_rotary_emb_qwen(getattr(attn, f"{norm}_{part}")(each), rotary, use_real=False)
            for part, each in (("q", query), ("k", key))
        )
        return query, key, value
