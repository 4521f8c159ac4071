"""Which edits of a batch descend from which rows: an edit's source may be the edit of the turn before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Generation:
    """The ancestors of a batch's edits that are so many generations back (1: the sources themselves).

    Edits of early turns have no ancestors so far back: those that have are the edits from ``first`` on.
    ``rows`` are their ancestors' conditional rows in the U-Net's batch. The ancestors of the later ones of
    them are edits themselves, ``parents`` by their place among the edits, and have a source in their turn.
    """

    first: int
    rows: torch.Tensor
    parents: torch.Tensor


def turns_of(source_rows: Sequence[int], sources: int) -> list[slice]:
    """Which edits are of the first turn, of the second and so on.

    Args:
        source_rows: of each edit, the row of its source in the batch [sources | edits].
        sources: how many rows are no edits.

    Raises:
        ValueError: an edit's source does not stand before it, or the turns are mixed.
    """
    depths: list[int] = []
    for index, row in enumerate(source_rows):
        if not 0 <= row < sources + index:
            raise ValueError(f"edit {index} has row {row} as its source, which does not stand before it")
        depths.append(0 if row < sources else depths[row - sources] + 1)
    if depths != sorted(depths):
        raise ValueError(f"the edits' turns must be in order, not {[depth + 1 for depth in depths]}")
    starts = [depths.index(depth) for depth in sorted(set(depths))]
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(depths)], strict=True)]


def generations_of(
    source_rows: Sequence[int], sources: int, offset: int, device: torch.device
) -> list[Generation]:
    """Every edit's source, then the sources of those that are edits, and so on: one entry a turn.

    Args:
        source_rows: of each edit, as in :func:`turns_of`.
        sources: how many rows are no edits.
        offset: where the conditional rows begin in the U-Net's batch.
        device: of the tensors.
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
