"""The ancestors of each edit in a batch.

In a session, an edit's source can be the edit of the turn before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Generation:
    """The ancestors of a batch's edits, a fixed number of generations back (one: the edits' sources).

    Edits of early turns have fewer ancestors; only the edits from ``first`` on have one in this generation.

    Attributes:
        first: position of the first edit with an ancestor in this generation.
        rows: the ancestors' conditional rows in the U-Net's batch, one per edit from ``first`` on.
        parents: for the ancestors that are edits themselves, their positions among the edits. They belong to
            the last edits, and have an ancestor in the next generation.
    """

    first: int
    rows: torch.Tensor
    parents: torch.Tensor


def turns_of(source_rows: Sequence[int], sources: int) -> list[slice]:
    """The edits of each turn, as slices.

    Args:
        source_rows: for each edit, the row of its source in the batch [sources | edits].
        sources: number of source rows.

    Raises:
        ValueError: an edit's source does not come before it, or the turns are mixed.
    """
    depths: list[int] = []
    for index, row in enumerate(source_rows):
        if not 0 <= row < sources + index:
            raise ValueError(f"edit {index} has row {row} as its source, which does not come before it")
        depths.append(0 if row < sources else depths[row - sources] + 1)
    if depths != sorted(depths):
        raise ValueError(f"the edits' turns must be in order, not {[depth + 1 for depth in depths]}")
    starts = [depths.index(depth) for depth in sorted(set(depths))]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(depths)], strict=True)]


def rows_by_turn(
    turns: Sequence[slice], edit_rows: torch.Tensor, source_rows: torch.Tensor, halves: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The rows of each turn's sources and edits, int64 [halves * edits] each, half by half.

    Args:
        turns: from :func:`turns_of`.
        edit_rows, source_rows: by edit [E], in the batch [sources | edits].
        halves: where each half of the network's batch begins.
    """
    return [
        (
            torch.cat([source_rows[turn] + half for half in halves]),
            torch.cat([edit_rows[turn] + half for half in halves]),
        )
        for turn in turns
    ]


def generations_of(
    source_rows: Sequence[int], sources: int, offset: int, device: torch.device
) -> list[Generation]:
    """The generations of ancestors: every edit's source, then the sources of these that are edits, and so on.

    There are as many generations as turns.

    Args:
        source_rows: for each edit, as in :func:`turns_of`.
        sources: number of source rows.
        offset: the first conditional row in the U-Net's batch.
        device: the tensors' device.
    """
    turns = turns_of(source_rows, sources)
    generations, ancestors = [], list(source_rows)
    for turn, later in zip(turns, [*turns[1:], None], strict=True):
        deeper = len(ancestors) if later is None else later.start - turn.start
        parents = [row - sources for row in ancestors[deeper:]]
        rows, indices = (torch.tensor(x, dtype=torch.long, device=device) for x in (ancestors, parents))
        generations.append(Generation(turn.start, rows + offset, indices))
        ancestors = [source_rows[parent] for parent in parents]
    return generations
