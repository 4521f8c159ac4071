"""The calls of the U-Net in one step, as tensors of places."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from stages.edit.sparse.neighbours import Kind

Moves = tuple[torch.Tensor, torch.Tensor]
"""Places to write, and the rows that are written there."""


@dataclass(frozen=True)
class Call:
    """Edits that are computed in one call of the U-Net; it has ``halves * edits`` rows.

    Attributes:
        number: of the call in its step.
        turn: of its edits, from 0.
        edits: positions among the batch's edits, int64 [edits].
        kept: the rows of the call that are not repetitions.
        rows: the edits' rows in the U-Net's batch, int64 [rows].
        origins: the stored pictures that the rows are edits of, int64 [rows].
        lists: tokens by level, int64 [edits,L]; None: the whole pictures.
        gathers: for each kind of convolution, the rows of [stored | own | zeros] that its outputs read,
            int64 [rows*L*9].
        carried: the stored pictures that take the call's rows; None if no edit of the call is a carrier.
        taken, taken_by_attention: by level, the stored tokens that take the call's.
        replaced: for later calls by number and level, the tokens to be replaced that take the call's.
    """

    number: int
    turn: int
    edits: torch.Tensor
    kept: torch.Tensor
    rows: torch.Tensor
    origins: torch.Tensor
    lists: list[torch.Tensor] | None
    gathers: dict[Kind, torch.Tensor]
    carried: Moves | None
    taken: list[Moves | None]
    taken_by_attention: list[Moves | None]
    replaced: dict[int, list[Moves]]

    @property
    def halves(self) -> int:
        """2 if the call has unconditional rows, else 1."""
        return len(self.rows) // len(self.edits)

    def tokens(self, level: int) -> torch.Tensor:
        """The tokens of all rows of a call of lists, int64 [rows,L]."""
        assert self.lists is not None
        return self.lists[level].repeat(self.halves, 1)


@dataclass(frozen=True)
class StepPlan:
    """All calls of a step, and what is stored for them.

    Attributes:
        turns: the calls by turn.
        stored: by level, the source tokens with which the convolutions' stores begin.
        read: by level, the same for the tokens that attention reads besides keys and values.
        read_places: by level, the place of each token in the attention's store [stored pictures,tokens].
    """

    turns: list[list[Call]]
    stored: list[torch.Tensor]
    read: list[torch.Tensor]
    read_places: list[torch.Tensor]

    @property
    def calls(self) -> list[Call]:
        return [call for calls in self.turns for call in calls]

    def to(self, device: torch.device) -> "StepPlan":
        """The plan with its tensors on a device."""
        return _moved(self, device)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(each, device) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(each, device) for each in value)
    if isinstance(value, Call | StepPlan):
        return type(value)(*(_moved(getattr(value, field.name), device) for field in fields(value)))
    return value
