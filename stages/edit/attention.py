"""Prompt-to-Prompt's attention without attention maps.

Every published controller is, per head, ``P_edit = P_s B diag(a) + P_t diag(1 - a + a rho)``.
Column operations commute with the values, so with fused attention (SDPA)

    O_edit = SDPA(Q_s, K_s, B (a V_t)) + SDPA(Q_t, K_t, (1 - a + a rho) V_t),

and self-attention replacement is ``SDPA(Q_s, K_s, V_t)``. No map is ever stored. Outside the soft
mask M an edit row keeps its source row's attention output: ``O = M O_edit + (1 - M) O_source``.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.control import PromptToPrompt


class PromptToPromptAttention:
    """Attention processor of one layer; does plain attention until a control is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.control: PromptToPrompt | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states [2R,N,C], encoder_hidden_states [2R,T,d] in cross-attention."""
        if encoder_hidden_states is None:
            output = self._self_attention(attn, hidden_states)
        else:
            output = self._cross_attention(attn, hidden_states, encoder_hidden_states)
        output = output.transpose(1, 2).flatten(2)
        if self.control is not None:
            output = _keep_source_outside(output, self.control)
        return attn.to_out[1](attn.to_out[0](output))

    def _self_attention(self, attn: Attention, states_RNC: torch.Tensor) -> torch.Tensor:
        control, matched = self.control, states_RNC
        if control is not None and control.self_open and states_RNC.shape[1] <= control.self_max_tokens:
            matched = states_RNC.index_select(0, control.query_rows)
        query, key = _heads(attn, attn.to_q(matched)), _heads(attn, attn.to_k(matched))
        return sdpa(query, key, _heads(attn, attn.to_v(states_RNC)), scale=attn.scale)

    def _cross_attention(
        self, attn: Attention, states_RNC: torch.Tensor, text_RTD: torch.Tensor
    ) -> torch.Tensor:
        control = self.control
        query = _heads(attn, attn.to_q(states_RNC))
        if control is None:
            key, value = (_heads(attn, to(text_RTD)) for to in (attn.to_k, attn.to_v))
            return sdpa(query, key, value, scale=attn.scale)
        if self.name not in control.text:
            control.text[self.name] = (
                _heads(attn, attn.to_k(text_RTD)),
                _heads(attn, attn.to_v(text_RTD)),
            )
        key, value = control.text[self.name]
        if not control.cross_open:
            return sdpa(query, key, value, scale=attn.scale)
        value_EHTD = value[control.cond_edits]
        gate = control.gate[:, None, :, None]
        own = 1 - gate + gate * control.own[:, None, :, None]
        borrowed = control.matrix[:, None] @ (gate * value_EHTD)
        output = sdpa(query, key, value.index_copy(0, control.cond_edits, own * value_EHTD), scale=attn.scale)
        sources = control.cond_sources
        from_source = sdpa(query[sources], key[sources], borrowed, scale=attn.scale)
        return output.index_add(0, control.cond_edits, from_source)


def _heads(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    """[R,N,C] to [R,heads,N,C/heads]."""
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _keep_source_outside(output: torch.Tensor, control: PromptToPrompt) -> torch.Tensor:
    mask = control.mask_for(output.shape[1])
    if mask is None:
        return output
    rows = output.shape[0] // 2
    for offset in (0, rows):
        edited = output[control.edit_rows + offset]
        source = output[control.source_rows + offset]
        mixed = torch.lerp(source, edited, mask.to(output.dtype))
        output = output.index_copy(0, control.edit_rows + offset, mixed)
    return output


def install(unet: UNet2DConditionModel) -> list[PromptToPromptAttention]:
    """Give every attention layer of a U-Net a processor; returns them, in call-independent order."""
    processors = {name: PromptToPromptAttention(name) for name in unet.attn_processors}
    layers = list(processors.values())
    # diffusers empties the dict it is given
    unet.set_attn_processor(processors)  # type: ignore[arg-type]
    return layers
