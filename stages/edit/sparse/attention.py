"""Prompt-to-Prompt's attention for edits that are computed apart from their sources, as lists of tokens.

The equations are those of :mod:`stages.edit.prompt_to_prompt.attention`. Queries are the list's tokens. Keys
and values of self-attention are those of the source's picture in which the list is pasted.
"""

from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention

from stages.edit.prompt_to_prompt.attention import PromptToPromptAttention, attend, gate_and_own, heads_of
from stages.edit.sparse.layers import take
from stages.edit.sparse.state import Mode, State


@dataclass(frozen=True)
class Stored:
    """What a layer keeps of the stored pictures.

    Attributes:
        level: of the layer.
        tokens: number of tokens of a whole picture, N.
        query: of the tokens that lists read [S,heads,d]; None if no gate is open in this step.
        output: the layer's attention of the same tokens [S,C].
        key, value: of self-attention, of all tokens [pictures,heads,N,d]; else None.
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
        level = [height * width for height, width in state.sizes].index(states.shape[1])
        chosen, control = state.step.read[level], state.controlled
        is_read = control.borrowed_rows(states.shape[1]) is not None if text is None else control.cross_open
        if len(state.roots) > len(query):  # carriers begin as their roots
            key, value = key[state.roots], value[state.roots]
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
        stored, call, control = self.state.memory[self.name], self.state.present, self.state.controlled
        query = heads_of(attn, attn.to_q(states))
        output = self._cross(attn, query, stored) if cross else self._self(attn, states, query, stored)
        output = output.transpose(1, 2).flatten(2)
        mask = control.mask_for(stored.tokens)
        if mask is not None:
            own_mask = mask[call.edits].repeat(call.halves, 1, 1)
            if call.lists is not None:
                own_mask = own_mask.gather(1, call.tokens(stored.level)[..., None])
            theirs = stored.output[self._places(call.origins, stored)]
            output = torch.lerp(theirs, output, own_mask.to(output.dtype))
        moves = call.taken_by_attention[stored.level]
        take(stored.output, moves, output)
        if stored.query is not None:
            take(stored.query, moves, query.transpose(1, 2))
        return output

    def _places(self, pictures: torch.Tensor, stored: Stored) -> torch.Tensor:
        """The places of the call's tokens in stored pictures, int64 [rows,L]; for its last rows if fewer."""
        call, places = self.state.present, self.state.step.read_places[stored.level][pictures]
        if call.lists is None:
            return places
        return places.gather(1, call.tokens(stored.level)[-len(pictures) :])

    def _self(
        self, attn: Attention, states: torch.Tensor, query: torch.Tensor, stored: Stored
    ) -> torch.Tensor:
        """Keys and values of the list are pasted into those of the picture that it edits.

        While the gate of self-attention is open, queries and keys are another row's.
        """
        call = self.state.present
        key, value = (heads_of(attn, to(states)) for to in (attn.to_k, attn.to_v))
        assert stored.key is not None
        assert stored.value is not None
        if call.lists is not None:
            where = call.tokens(stored.level)[:, None, :, None].expand_as(key)
            key = stored.key[call.origins].scatter(2, where, key)
            value = stored.value[call.origins].scatter(2, where, value)
        if call.carried is not None:
            pictures, rows = call.carried
            stored.key[pictures], stored.value[pictures] = key[rows], value[rows]
        borrowed = self.state.controlled.borrowed_rows(stored.tokens)
        if borrowed is not None:
            assert stored.query is not None
            lenders = borrowed[call.rows]
            borrows = lenders != call.rows
            pictures = torch.where(borrows, self.state.pictures[lenders], call.origins)
            theirs = stored.query[self._places(pictures, stored)].transpose(1, 2)
            borrows = borrows[:, None, None, None]
            query = torch.where(borrows, theirs, query)
            key = torch.where(borrows, stored.key[pictures], key)
        return attend(query, key, value, attn.scale)

    def _cross(self, attn: Attention, query: torch.Tensor, stored: Stored) -> torch.Tensor:
        """Equation (2) of :mod:`stages.edit.prompt_to_prompt.attention`."""
        call, control = self.state.present, self.state.controlled
        key, value = control.text[self.name]
        own_key, own_value = key[call.rows], value[call.rows]
        if not control.cross_open:
            return attend(query, own_key, own_value, attn.scale)
        cond = slice(len(call.rows) - len(call.edits), None)
        gate, own = gate_and_own(control, call.edits)
        borrowed = control.matrix[call.edits][:, None] @ (gate * own_value[cond])
        own_value[cond] *= own
        output = attend(query, own_key, own_value, attn.scale)
        output[cond] += self._by_origins(borrowed, key, attn.scale, stored)
        return output

    def _by_origins(
        self, values: torch.Tensor, key: torch.Tensor, scale: float, stored: Stored
    ) -> torch.Tensor:
        """P_s V for the call's edits, from their origins to the first sources (sessions have several)."""
        call, control = self.state.present, self.state.controlled
        assert stored.query is not None
        rows, total = control.source_rows[call.edits], torch.zeros(())
        for turn in reversed(range(call.turn + 1)):
            cond = rows + control.halves[-1]
            query = stored.query[self._places(self.state.pictures[cond], stored)].transpose(1, 2)
            shares = values
            if turn:  # the origin is an edit itself: it passes a part on to its own origin
                parents = rows - control.sources
                gate, own = gate_and_own(control, parents)
                shares, values = own * values, control.matrix[parents][:, None] @ (gate * values)
                rows = control.source_rows[parents]
            part = attend(query, key[cond], shares, scale)
            total = part if turn == call.turn else total + part
        return total
