"""Prompt-to-Prompt's attention for edits that are computed apart from their sources, as lists of tokens.

The equations are those of :mod:`stages.edit.prompt_to_prompt.attention`. Queries are the list's tokens. Keys
and values of self-attention are those of the source's picture in which the list is pasted.
"""

from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention

from stages.edit.prompt_to_prompt.attention import PromptToPromptAttention, attend, heads_of
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.sparse.plan import Call
from stages.edit.sparse.state import Mode, State


@dataclass(frozen=True)
class Stored:
    """What a layer keeps of the sources.

    Attributes:
        level: of the layer.
        tokens: number of tokens of a whole picture, N.
        query: of the tokens that lists read [S,heads,d]; None if no gate is open in this step.
        output: the layer's attention of the same tokens [S,C].
        key, value: of self-attention, of all tokens [source rows,heads,N,d]; else None.
    """

    level: int
    tokens: int
    query: torch.Tensor | None
    output: torch.Tensor
    key: torch.Tensor | None
    value: torch.Tensor | None


class SparseAttention:
    """Attention processor of one layer; ``plain`` computes batches without a plan."""

    def __init__(self, name: str, plain: PromptToPromptAttention, state: State) -> None:
        self.name, self.plain, self.state = name, plain, state

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As :class:`PromptToPromptAttention`; hidden_states [R,N,C], or lists [R,L,C]."""
        mode, text = self.state.mode, encoder_hidden_states
        if mode is Mode.PLAIN:
            return self.plain(attn, hidden_states, text, attention_mask, temb)
        if mode is Mode.SOURCES:
            output = self._of_sources(attn, hidden_states, text)
        else:
            output = self._of_edits(attn, hidden_states, cross=text is not None)
        return attn.to_out[1](attn.to_out[0](output))

    def _of_sources(self, attn: Attention, states: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        state, query = self.state, heads_of(attn, attn.to_q(states))
        read = states if text is None else text
        key, value = heads_of(attn, attn.to_k(read)), heads_of(attn, attn.to_v(read))
        output = attend(query, key, value, attn.scale).transpose(1, 2).flatten(2)
        assert state.plan is not None
        assert state.control is not None
        level = [height * width for height, width in state.sizes].index(states.shape[1])
        chosen, control = state.plan.read[level], state.control
        is_read = control.borrowed_rows(states.shape[1]) is not None if text is None else control.cross_open
        state.memory[self.name] = Stored(
            level,
            states.shape[1],
            query.transpose(1, 2).flatten(0, 1).index_select(0, chosen) if is_read else None,
            output.flatten(0, 1).index_select(0, chosen),
            key if text is None else None,
            value if text is None else None,
        )
        return output

    def _of_edits(self, attn: Attention, states: torch.Tensor, *, cross: bool) -> torch.Tensor:
        state, stored = self.state, self.state.memory[self.name]
        assert state.call is not None
        assert state.control is not None
        call, control, read = state.call, state.control, state.call.reads[stored.level]
        if cross:
            output = self._cross(attn, states, stored, call, control)
        else:
            output = self._self(attn, states, stored, call, control)
        output = output.transpose(1, 2).flatten(2)
        mask = control.mask_for(stored.tokens)
        if mask is None:
            return output
        halves = len(call.rows) // len(call.edits)
        mask = mask[call.edits]
        if call.lists is not None:
            mask = mask.gather(1, call.lists[stored.level][..., None])
        return torch.lerp(stored.output[read], output, mask.repeat(halves, 1, 1).to(output.dtype))

    def _self(
        self, attn: Attention, states: torch.Tensor, stored: Stored, call: Call, control: PromptToPrompt
    ) -> torch.Tensor:
        """Keys and values of the list are pasted into the source's.

        While the gate of self-attention is open, queries and keys are the source's.
        """
        query, key, value = (heads_of(attn, to(states)) for to in (attn.to_q, attn.to_k, attn.to_v))
        assert stored.key is not None
        assert stored.value is not None
        their_key, their_value = stored.key[call.sources], stored.value[call.sources]
        if call.lists is None:
            pasted_key, pasted_value = key, value
        else:
            tokens = call.lists[stored.level].repeat(len(call.rows) // len(call.edits), 1)
            where = tokens[:, None, :, None].expand_as(key)
            pasted_key = their_key.scatter(2, where, key)
            pasted_value = their_value.scatter(2, where, value)
        borrowed = control.borrowed_rows(stored.tokens)
        if borrowed is not None:
            assert stored.query is not None
            borrows = (borrowed[call.rows] != call.rows)[:, None, None, None]
            theirs = stored.query[call.reads[stored.level]].transpose(1, 2)
            query = torch.where(borrows, theirs, query)
            pasted_key = torch.where(borrows, their_key, pasted_key)
        return attend(query, pasted_key, pasted_value, attn.scale)

    def _cross(
        self, attn: Attention, states: torch.Tensor, stored: Stored, call: Call, control: PromptToPrompt
    ) -> torch.Tensor:
        """Equation (2) of :mod:`stages.edit.prompt_to_prompt.attention`."""
        query = heads_of(attn, attn.to_q(states))
        if self.name not in control.text:
            text = self.state.text
            control.text[self.name] = heads_of(attn, attn.to_k(text)), heads_of(attn, attn.to_v(text))
        key, value = control.text[self.name]
        own_key, own_value = key[call.rows], value[call.rows]
        if not control.cross_open:
            return attend(query, own_key, own_value, attn.scale)
        assert stored.query is not None
        edits = len(call.edits)
        cond = slice(len(call.rows) - edits, None)
        gate = control.gate[call.edits][:, None, :, None]
        own = 1 - gate + gate * control.own[call.edits][:, None, :, None]
        borrowed = control.matrix[call.edits][:, None] @ (gate * own_value[cond])
        own_value[cond] *= own
        output = attend(query, own_key, own_value, attn.scale)
        theirs = stored.query[call.reads[stored.level][cond]].transpose(1, 2)
        # The source's keys are its conditional row's; ``sources`` count from the first stored row.
        source_key = key[control.halves[-1] + control.source_rows[call.edits]]
        output[cond] += attend(theirs, source_key, borrowed, attn.scale)
        return output
