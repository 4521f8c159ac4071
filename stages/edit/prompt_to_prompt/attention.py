"""Prompt-to-Prompt's attention without attention maps (docs/prompt-to-prompt.md, section 2).

Every published controller has this form, per head:

    P_edit = P_s B diag(a) + P_t diag(1 - a + a rho)                              (1)

P_s, P_t [N,T]: attention maps of the source row and the edit row. B [T,T], rho [T]: the token map. a [T]: the
gate, 1 while a token takes the source's attention. P_edit only occurs in the product P_edit V_t, and (P W) V
= P (W V). Fused attention (SDPA) can therefore apply the matrices to the values, and no map is stored:

    O_edit = SDPA(Q_s, K_s, B (a V_t)) + SDPA(Q_t, K_t, (1 - a + a rho) V_t)      (2)

Self-attention replacement is ``SDPA(Q_s, K_s, V_t)``. In a session the source can be an edit itself (the turn
before). Then P_s has the form (1) too, and (2) is applied repeatedly. Outside the soft mask M, an edit row
keeps its source row's attention output: ``O = M O_edit + (1 - M) O_source``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.outside import mix_outside
from stages.models.diffusion.families.masks import masked_keys, seeing


class PromptToPromptAttention:
    """Attention processor of one layer. Without a control it computes plain attention."""

    def __init__(self, name: str, attn: Attention, attend_self: "Attend") -> None:
        self.name, self.attn, self._attend_self = name, attn, attend_self
        self.control: PromptToPrompt | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states [R,N,C]; encoder_hidden_states [R,T,d] in cross-attention, None in self-attention.

        ``attention_mask``: of the text [R,1,T], 0 for what is seen; None: all is.
        """
        if encoder_hidden_states is None:
            output = self._self_attention(attn, hidden_states)
        else:
            output = self._cross_attention(attn, hidden_states, encoder_hidden_states, attention_mask)
        output = output.transpose(1, 2).flatten(2)
        if self.control is not None:
            output = mix_outside(output, self.control)
        return attn.to_out[1](attn.to_out[0](output))

    def _self_attention(self, attn: Attention, states_RNC: torch.Tensor) -> torch.Tensor:
        # Queries and keys of an edit row come from its source row while the gate is open; values are always
        # its own.
        rows = self.control.borrowed_rows(states_RNC.shape[1]) if self.control is not None else None
        matched = states_RNC if rows is None else states_RNC.index_select(0, rows)
        query, key = _queries(attn, matched), _keys(attn, matched)
        return self._attend_self(query, key, heads_of(attn, attn.to_v(states_RNC)), attn.scale)

    def _cross_attention(
        self, attn: Attention, states_RNC: torch.Tensor, text_RTD: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        control = self.control
        query = _queries(attn, states_RNC)
        if mask is not None:
            query = seeing(query, attn.scale)
        if control is None:
            return attend(query, *of_text(attn, text_RTD, mask), attn.scale)
        if self.name not in control.text:  # text that the network projects first, and its mask
            control.text[self.name] = of_text(attn, text_RTD, mask)
        key, value = control.text[self.name]
        if control.blending and query.shape[2] == control.blend_tokens:
            edits = control.cond_edits
            follow_words(
                control,
                slice(None),
                query.shape[1],
                lambda values: _by_sources(query, key, values, attn.scale, control),
                lambda values: sdpa(query[edits], key[edits], values, scale=attn.scale),
            )
        if not control.cross_open:
            return attend(query, key, value, attn.scale)
        # Equation (2). First its second term for the edit rows, together with the plain attention of all
        # other rows; then the first term is added to the edit rows.
        gate, own = gate_and_own(control)
        value_EHTD = value[control.cond_edits]
        borrowed = control.matrix[:, None] @ (gate * value_EHTD)
        output = attend(query, key, value.index_copy(0, control.cond_edits, own * value_EHTD), attn.scale)
        return output.index_add(0, control.cond_edits, _by_sources(query, key, borrowed, attn.scale, control))


def _by_sources(
    query: torch.Tensor, key: torch.Tensor, values: torch.Tensor, scale: float, control: PromptToPrompt
) -> torch.Tensor:
    """P_s V for each edit: the output of its source's cross-attention for values V [E,heads,T,D].

    If the source is an edit itself, its map has the form (1). It attends to the share (1 - a + a rho) V with
    its own keys, and passes B (a V) on to its own source. The loop goes from the nearest ancestors to the
    first sources. In each round, ``values`` shrinks to the edits that still have an ancestor.
    """
    gate, own = gate_and_own(control)
    outputs: list[torch.Tensor] = []
    for generation in control.generations:
        shares, parents = values, generation.parents
        if len(parents):
            ends, handed = values.split([len(values) - len(parents), len(parents)])
            shares = torch.cat([ends, own[parents] * handed])
            values = control.matrix[parents, None] @ (gate[parents] * handed)
        outputs.append(attend(query[generation.rows], key[generation.rows], shares, scale))
    total = outputs[0]
    for generation, output in zip(control.generations[1:], outputs[1:], strict=True):
        total[generation.first :] += output
    return total


def gate_and_own(
    control: PromptToPrompt, edits: torch.Tensor | slice = slice(None)
) -> tuple[torch.Tensor, torch.Tensor]:
    """a and 1 - a + a rho of some edits, shaped to scale the rows of values: [E,1,T,1]."""
    gate = control.gate[edits][:, None, :, None]
    return gate, 1 - gate + gate * control.own[edits][:, None, :, None]


def follow_words(
    control: PromptToPrompt,
    edits: torch.Tensor | slice,
    heads: int,
    by_sources: Callable[[torch.Tensor], torch.Tensor],
    by_own: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Add a layer's controlled attention to the followed words to LocalBlend's maps of some edits.

    Args:
        control: of the batch, with LocalBlend.
        edits: the edits, of all of which the layer sees whole pictures.
        heads: of the layer.
        by_sources: P_s V of these edits [E,heads,N,D] for values [E,heads,T,D].
        by_own: P_t V.

    With u [T] = 1 at the followed words, ``P u`` is an attention output for values u
    (docs/prompt-to-prompt.md, section 6). Column 0 follows the edit's words in the edit's map, column 1 the
    source's words in the source's map.
    """
    gate, own = gate_and_own(control, edits)
    target = control.target_words[edits][:, None, :, None]
    words = control.source_words[edits][:, None, :, None]
    borrowed = torch.cat([control.matrix[edits][:, None] @ (gate * target), words], -1)
    own_words = torch.cat([own * target, torch.zeros_like(words)], -1)
    maps = by_sources(_widened(borrowed, heads)) + by_own(_widened(own_words, heads))
    summed = maps.sum(1).to(control.target_maps.dtype)
    control.target_maps[edits] += summed[..., 0]
    control.source_maps[edits] += summed[..., 1]


def _widened(value: torch.Tensor, heads: int) -> torch.Tensor:
    """Values [E,1,T,2] repeated for every head and padded to eight columns, as fused kernels need."""
    return functional.pad(value, (0, 6)).expand(-1, heads, -1, -1)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """SDPA on heads [R,heads,N,D]. Zeros widen narrow heads to 16 channels, and values to the keys' width.

    They do not change the result. torch's fused CPU kernel takes 1.4 times as long for 8 channels as
    for 16, and wants values as wide as keys.
    """
    width = max(16, query.shape[-1])
    if value.shape[-1] == width:
        return sdpa(query, key, value, scale=scale)
    filled = [functional.pad(heads, (0, width - heads.shape[-1])) for heads in (query, key, value)]
    return sdpa(filled[0], filled[1], filled[2], scale=scale)[..., : value.shape[-1]]


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""The output [R,heads,N,D] of queries, keys and values [R,heads,L,D] with a scale; linear in the values."""


def _queries(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    query = attn.to_q(states)
    return heads_of(attn, query if attn.norm_q is None else attn.norm_q(query))


def _keys(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    key = attn.to_k(states)
    return heads_of(attn, key if attn.norm_k is None else attn.norm_k(key))


def of_text(
    attn: Attention, text_RTD: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [R,heads,T,D] of text in cross-attention; the keys with their mask, if there is one."""
    key, value = _keys(attn, text_RTD), heads_of(attn, attn.to_v(text_RTD))
    return key if mask is None else masked_keys(key, mask[:, 0] == 0), value


def heads_of(attn: Attention, states: torch.Tensor) -> torch.Tensor:
    """[R,N,C] to [R,heads,N,C/heads]."""
    return states.unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def install(network: Any, attend_self: Attend = attend) -> list[PromptToPromptAttention]:
    """Give every attention layer of a U-Net, or of a transformer with cross-attention, a processor.

    Args:
        network: diffusers'.
        attend_self: computes its self-attention.

    Returns:
        The processors; each knows its layer's name.
    """
    # Attribute by attribute, because only those of a compiled network are the network's own.
    layer_of = {
        name: attrgetter(name.removesuffix(".processor"))(network) for name in network.attn_processors
    }
    processors = {name: PromptToPromptAttention(name, attn, attend_self) for name, attn in layer_of.items()}
    layers = list(processors.values())
    # diffusers empties the dict that it receives, so ``layers`` is taken first.
    network.set_attn_processor(processors)
    return layers


def begin(layers: Sequence[PromptToPromptAttention], control: PromptToPrompt | None) -> None:
    """Give the layers from :func:`install`, whose text has no mask, the control of a batch.

    With None they compute plain attention.
    """
    for layer in layers:
        layer.control = control
    if control is not None:
        control.layers = {
            layer.name: partial(of_text, layer.attn) for layer in layers if layer.attn.is_cross_attention
        }
