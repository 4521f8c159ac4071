"""A transformer with joint attention that computes edits at their text and their active tokens alone.

Under ``edit.hold: exact`` (:mod:`stages.edit.prompt_to_prompt.joint`) an inactive token of an edit has its
source's keys, values and states in every block. Each block is computed for the sources first, so these are at
hand, and an edit needs only its other tokens. All layers but attention see one token at a time, so the result
is that of the dense network, not an approximation. Nothing is kept from block to block but the states.

A list has one of a few lengths (:data:`~stages.edit.sparse.token_lists.TRANSFORMER_SHARES`) and is filled up
with inactive tokens. They ask and are not looked at, so they change nothing. Each edit has a call of its own:
rows of a call share their positions, and the shapes then depend on the edit's own list alone.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch

from stages.edit.prompt_to_prompt.fusion import Fusion
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.sparse.conditions import Conditions
from stages.edit.sparse.cost import mean_costs
from stages.edit.sparse.joint_attention import JointCall, SparseJointAttention
from stages.edit.sparse.steps import free_by_step, plan_steps
from stages.edit.sparse.token_lists import (
    TRANSFORMER_SHARES,
    Size,
    needed_share,
    token_lists,
)
from stages.models.diffusion.families.joint import Stream


class SparseTransformer:
    """Stands in a network's place in :func:`stages.models.diffusion.sampler.sample`.

    Args:
        network: a :class:`stages.models.diffusion.families.joint.JointNetwork`.
        attention: computes batches without a control; with ``hold``, and installed.
    """

    def __init__(self, network: Any, attention: JointAttention) -> None:
        self.network, self.core = network, SparseJointAttention(attention)
        network.install(self.core)
        self.plans: list[list[JointCall]] = []
        self._sources = self._origins = self._equal = torch.empty(0, dtype=torch.long)

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

    def begin(self, control: JointControl | None, size: Size) -> None:
        """Prepare a batch; without a control the network computes all rows whole.

        Args:
            control: with the fusion ``schedule``, of edits of one turn.
            size: rows and columns of the picture's tokens.
        """
        self.core.control = control
        if control is None:
            return
        assert len(control.turns) == 1, "sessions are drawn whole"
        device = control.source_rows.device
        halves = range(len(control.halves))
        numbers = torch.arange(control.sources, device=device)
        first = torch.tensor(control.first_equal, device=device)
        self._sources = torch.cat([numbers + offset for offset in control.halves])
        of_rows = torch.cat([numbers, control.source_rows])
        equal = torch.cat([numbers, control.edit_rows[first]])
        self._origins = torch.cat([of_rows + half * control.sources for half in halves])
        """For each row of the network, the place of its source among the sources of all halves."""
        self._equal = torch.cat([equal + offset for offset in control.halves])
        """For each row of the network, the first row that is the same."""
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
        control = self.core.control
        if control is None:
            return self.network(rows, timestep, states, timestep_cond, added_cond_kwargs)
        calls = self.plans[control.step]
        conditions = Conditions(timestep, states, timestep_cond, added_cond_kwargs)
        sources = self._begin(rows, conditions, self._sources)
        edits = [self._begin(rows, conditions, call.rows).at(call.tokens) for call in calls]
        for block in self.network.blocks:
            self.core.begin_sources()
            sources = self.network.through(block, sources)
            for number, call in enumerate(calls):
                self.core.begin_edit(call)
                edits[number] = self.network.through(block, edits[number])
        self.core.begin_sources()  # what the last block's layers kept is not needed any more
        predicted = self.network.end(sources)[self._origins]
        for call, edit in zip(calls, edits, strict=True):
            drawn = self.network.end(edit).index_select(1, call.active)
            predicted[call.rows[:, None], call.tokens[call.active]] = drawn
        return SimpleNamespace(
            sample=self.network.unpack(predicted[self._equal], (rows.shape[2], rows.shape[3]))
        )

    def _begin(self, latents: torch.Tensor, conditions: Conditions, rows: torch.Tensor) -> Stream:
        """What enters the first block, of some rows alone: their bits then do not depend on the others."""
        of = conditions.of(rows)
        return self.network.begin(latents[rows], of.timestep, of.states, of.timestep_cond, of.added)


def _calls(free: torch.Tensor, control: JointControl, device: torch.device) -> list[JointCall]:
    """The calls of a step, for free tokens [E,h,w] on the CPU. An edit without one needs no call."""
    offsets = torch.tensor(control.halves, device=device)
    halves = torch.arange(len(control.halves), device=device)
    size, calls = (free.shape[1], free.shape[2]), []
    for edit in sorted(set(control.first_equal)):
        share = needed_share(free[edit], [size], TRANSFORMER_SHARES)
        if share == 0:
            continue
        (tokens,) = token_lists(free[edit], share, [size])
        (active,) = free[edit].flatten()[tokens].nonzero(as_tuple=True)
        calls.append(
            JointCall(
                edit,
                control.edit_rows[edit] + offsets,
                control.source_rows[edit] + halves * control.sources,
                tokens.to(device),
                active.to(device),
            )
        )
    return calls
