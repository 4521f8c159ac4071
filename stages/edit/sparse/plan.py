"""The plan of one step: which edits are computed together, as lists of which tokens, reading what."""

from collections.abc import Mapping, Sequence

import torch

from stages.edit.sparse.batch import Batch
from stages.edit.sparse.calls import StepPlan
from stages.edit.sparse.draft import Draft
from stages.edit.sparse.stores import Store
from stages.edit.sparse.token_lists import Size, needed_share, token_lists

EDITS_A_CALL: Mapping[str, int] = {"cpu": 1, "cuda": 4}
"""Edits that the U-Net computes in one call, by device. It is fixed, and a call with fewer edits repeats its
last one: shapes then depend on an edit's own list alone, and its drawing does not depend on its neighbours.

On a CPU more save 8 % where all places are filled, and cost more elsewhere. A GPU waits for the launch of a
call's kernels, and could compute several lists meanwhile (docs/benchmarks.md)."""


def plan_step(
    free: Mapping[int, torch.Tensor],
    batch: Batch,
    sizes: Sequence[Size],
    edits_a_call: int,
    *,
    store_all: bool = False,
) -> StepPlan:
    """Group the edits of a step by turn and by the lengths of their lists.

    An edit without a free token needs no call.

    Args:
        free: for each edit to compute its free tokens, bool [h,w].
        batch: the rows.
        sizes: sizes of the feature maps by level.
        edits_a_call: edits of a call of the U-Net.
        store_all: whether every token of the sources is stored, so that no shape depends on the edits.
    """
    lists: dict[int, list[torch.Tensor]] = {}
    groups: dict[tuple[int, float], list[int]] = {}  # by turn and share; whole pictures come last
    for turn, edits in enumerate(batch.turns):
        for edit in edits:
            if edit not in free:
                continue
            share = needed_share(free[edit], sizes)
            if 0 < share < 1:
                lists[edit] = token_lists(free[edit], share, sizes)
            if share > 0:
                groups.setdefault((turn, share), []).append(edit)
    drafts: list[Draft] = []
    for (turn, _), edits in sorted(groups.items()):
        for start in range(0, len(edits), edits_a_call):
            chosen = edits[start : start + edits_a_call]
            drafts.append(Draft(len(drafts), turn, chosen, edits_a_call, lists, batch, sizes))
    stored, read = ([Store(batch.origins, size) for size in sizes] for _ in range(2))
    for draft in drafts:
        draft.mark(stored, read)
    for store in (*stored, *read):
        if store_all:
            store.mark_all()
        store.number()
    calls = [draft.call(stored, read, drafts) for draft in drafts]
    by_turn = [
        [call for draft, call in zip(drafts, calls, strict=True) if draft.turn == turn]
        for turn in range(len(batch.turns))
    ]
    return StepPlan(
        by_turn,
        [store.first_tokens(batch) for store in stored],
        [store.first_tokens(batch) for store in read],
        [store.all_places(batch.halves) for store in read],
    )
