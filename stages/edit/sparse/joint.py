"""A transformer with joint attention that computes edits at their text and their active tokens alone.

Under ``edit.hold: exact`` (:mod:`stages.edit.prompt_to_prompt.joint`) an inactive token of an edit has its
source's keys, values and states in every block. The source is drawn in the same step, so these are at hand,
and an edit needs only its other tokens. All layers but attention see one token at a time, so the result is
that of the dense network, not an approximation.

A list has one of a few lengths (:data:`~stages.edit.sparse.token_lists.TRANSFORMER_SHARES`) and is filled up
with inactive tokens. They ask and are not looked at, so they change nothing. Each edit has a call of its own:
rows of a call share their positions, and the shapes then depend on the edit's own list alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.fusion import Fusion
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.sparse.conditions import Conditions
from stages.edit.sparse.cost import mean_costs
from stages.edit.sparse.steps import free_by_step, plan_steps
from stages.edit.sparse.token_lists import (
    TRANSFORMER_SHARES,
    Size,
    needed_share,
    token_lists,
)


@dataclass(frozen=True)
class JointCall:
    """One edit in one step.

    Attributes:
        row: of the edit in the batch.
        source: the row of its source.
        tokens: of the picture that are computed, int64 [L] in increasing order.
        active: the places of the active ones in this list, int64 [n].
    """

    row: int
    source: int
    tokens: torch.Tensor
    active: torch.Tensor


@dataclass(frozen=True)
class Stored:
    """What a layer keeps of the sources' pictures [sources,heads,N,d]; queries only if edits borrow them."""

    query: torch.Tensor | None
    key: torch.Tensor
    value: torch.Tensor


class SparseJointAttention:
    """The attention of all layers: stores what edits read of the sources, then computes the edits.

    Without a control it is the ``dense`` one.
    """

    def __init__(self, dense: JointAttention) -> None:
        self.dense = dense
        self.control: PromptToPrompt | None = None
        self._call: JointCall | None = None
        self._stored: list[Stored] = []
        self._layers: Iterator[Stored] = iter(())

    def begin_sources(self) -> None:
        """The network computes the sources next."""
        self._call, self._stored = None, []

    def begin_edit(self, call: JointCall) -> None:
        """The network computes an edit next; its layers run in the same order as with the sources."""
        self._call, self._layers = call, iter(self._stored)

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_tokens: int
    ) -> torch.Tensor:
        """As :class:`JointAttention`, for whole rows [R,heads,T+N,D] or an edit's list [1,heads,T+L,D]."""
        if self.control is None:
            return self.dense(query, key, value, text_tokens)
        if self._call is not None:
            return self._of_edit(query, key, value, text_tokens, self._call, self.control)
        pictures = (each[:, :, text_tokens:] for each in (query, key, value))
        stored = Stored(*pictures)
        self._stored.append(stored if self.control.self_open else Stored(None, stored.key, stored.value))
        return sdpa(query, key, value)

    def _of_edit(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        text_tokens: int,
        call: JointCall,
        control: PromptToPrompt,
    ) -> torch.Tensor:
        stored, source = next(self._layers), slice(call.source, call.source + 1)
        (text_query, query), (text_key, key), (text_value, value) = (
            each.tensor_split([text_tokens], 2) for each in (query, key, value)
        )
        where = call.tokens[call.active]
        key, value = (
            theirs[source].index_copy(2, where, own.index_select(2, call.active))
            for theirs, own in ((stored.key, key), (stored.value, value))
        )
        if stored.query is not None:
            borrows = control.query_rows[call.row] != call.row
            query = torch.where(borrows, stored.query[source].index_select(2, call.tokens), query)
            key = torch.where(borrows, stored.key[source], key)
        pairs = ((text_query, query), (text_key, key), (text_value, value))
        return sdpa(*(torch.cat(pair, 2) for pair in pairs))


class SparseTransformer:
    """Stands in a network's place in :func:`stages.models.diffusion.sampler.sample`.

    Args:
        network: of :mod:`stages.models.diffusion.families`, with ``at_tokens``.
        attention: computes batches without a control; with ``hold``.
    """

    def __init__(self, network: Any, attention: JointAttention) -> None:
        self.network, self.core = network, SparseJointAttention(attention)
        network.install(self.core)
        self.plans: list[list[JointCall]] = []
        self._first_equal = torch.empty(0, dtype=torch.long)

    @property
    def config(self) -> Any:
        """The network's configuration."""
        return self.network.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        return self.network.dtype

    def costs(
        self, mask: torch.Tensor, fusion: Fusion, steps: int, size: Size, text_tokens: int
    ) -> list[float]:
        """What edits with the masks M [E,1,H,W] cost, as shares of the same edits computed whole.

        It is the mean share of their tokens, of text and picture. ``size``: of the picture's tokens.
        """
        tokens = size[0] * size[1]

        def cost(share: float) -> float:
            return (text_tokens + share * tokens) / (text_tokens + tokens) if share else 0

        return mean_costs(free_by_step(mask, fusion, steps, size), [size], cost, TRANSFORMER_SHARES)

    def begin(self, control: PromptToPrompt | None, size: Size) -> None:
        """Prepare a batch; without a control the network computes all rows whole.

        Args:
            control: with the fusion ``schedule``, of edits of one turn.
            size: rows and columns of the picture's tokens.
        """
        self.core.control = control
        if control is None:
            return
        assert len(control.turns) == len(control.halves) == 1, "sessions are drawn whole"
        device = control.source_rows.device
        self._first_equal = torch.tensor(control.first_equal, device=device)
        self.plans = plan_steps(control, size, lambda free: _calls(free, control, device))

    def __call__(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> SimpleNamespace:
        """The prediction for latents [R,c,h,w], as the network's own.

        An edit's prediction at its inactive tokens is its source's. The dense one differs there, and the
        fusion drops it.
        """
        control, conditions = (
            self.core.control,
            Conditions(timestep, states, timestep_cond, added_cond_kwargs),
        )
        if control is None:
            return self.network(rows, timestep, states, timestep_cond, added_cond_kwargs)
        size = self.network.grid((rows.shape[2], rows.shape[3]))
        packed, positions = self.network.pack(rows), self.network.positions(size, rows.device)
        self.core.begin_sources()
        predicted = torch.empty_like(packed)
        sources = slice(0, control.sources)
        predicted[sources] = self._predict(packed[sources], positions, conditions.of(sources))
        predicted[control.edit_rows] = predicted[control.source_rows]
        for call in self.plans[control.step]:
            self.core.begin_edit(call)
            row = slice(call.row, call.row + 1)
            listed = packed[row].index_select(1, call.tokens)
            drawn = self._predict(listed, positions[call.tokens], conditions.of(row))
            predicted[call.row, call.tokens[call.active]] = drawn[0, call.active]
        self.core.begin_sources()  # what the layers stored is not needed any more
        predicted[control.edit_rows] = predicted[control.edit_rows[self._first_equal]]
        return SimpleNamespace(sample=self.network.unpack(predicted, size))

    def _predict(self, tokens: torch.Tensor, positions: torch.Tensor, of: Conditions) -> torch.Tensor:
        return self.network.at_tokens(tokens, positions, of.timestep, of.states, of.timestep_cond, of.added)


def _calls(free: torch.Tensor, control: PromptToPrompt, device: torch.device) -> list[JointCall]:
    """The calls of a step, for free tokens [E,h,w] on the CPU. An edit without one needs no call."""
    sources, size, calls = control.source_rows.tolist(), (free.shape[1], free.shape[2]), []
    for edit in sorted(set(control.first_equal)):
        share = needed_share(free[edit], [size], TRANSFORMER_SHARES)
        if share == 0:
            continue
        (tokens,) = token_lists(free[edit], share, [size])
        (active,) = free[edit].flatten()[tokens].nonzero(as_tuple=True)
        calls.append(JointCall(control.sources + edit, sources[edit], tokens.to(device), active.to(device)))
    return calls
