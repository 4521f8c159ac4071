"""Attention layers of Stable Diffusion 3 whose attention another part of the program computes."""

from typing import Any

import torch

from stages.models.diffusion.families.joint import JointCore


class SD3JointAttention:
    """Attention processor of one layer.

    A layer with text is joint attention. The second layer of some of SD 3.5's blocks sees the picture alone.
    """

    def __init__(self, core: JointCore) -> None:
        self.core = core

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """hidden_states [R,N,C] of the picture; encoder_hidden_states [R,T,C] of the text."""
        query, key, value = _heads(
            attn, hidden_states, (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k)
        )
        text_tokens = 0
        if encoder_hidden_states is not None:
            text_tokens = encoder_hidden_states.shape[1]
            text = _heads(
                attn,
                encoder_hidden_states,
                (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj),
                (attn.norm_added_q, attn.norm_added_k),
            )
            # The model's own order is picture, text. A core wants the text first, and attention has no order.
            query, key, value = (torch.cat(pair, 2) for pair in zip(text, (query, key, value), strict=True))
        output = self.core(query, key, value, text_tokens).transpose(1, 2).flatten(2)
        text_output, picture = output.tensor_split([text_tokens], 1)
        picture = attn.to_out[1](attn.to_out[0](picture))
        if encoder_hidden_states is None:
            return picture
        # The last block's text goes nowhere, and its layer has no projection for it.
        return picture, text_output if attn.context_pre_only else attn.to_add_out(text_output)


def _heads(
    attn: Any, states: torch.Tensor, projections: tuple[Any, Any, Any], norms: tuple[Any, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [R,heads,L,D]; SD 3 has no norms of queries and keys, SD 3.5 has."""
    query, key, value = (to(states).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for to in projections)
    query, key = (
        each if norm is None else norm(each) for each, norm in zip((query, key), norms, strict=True)
    )
    return query, key, value
