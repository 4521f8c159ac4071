"""Edits of later turns, computed as lists of tokens: their sources are edits too."""

import copy

import pytest

from tests.stages.sparse_emulation import EmulatedUNet, compute_all_as_lists
from tests.stages.test_sparse_edits import (
    EXACT,
    NOTHING,
    SMALL,
    WHOLE,
    control,
    dense,
    densely,
    draw,
    edit,
    graded,
    mask,
    sparsely,
)

__all__ = ["dense"]


@pytest.fixture
def as_lists(monkeypatch):
    compute_all_as_lists(monkeypatch)


SESSIONS = {
    "two turns": [edit(0, graded()), edit(1, SMALL), edit(2, mask(6, 6, 5, 5)), edit(3, mask(8, 8, 4, 4))],
    "three turns": [
        edit(0, graded()),
        edit(1, WHOLE, 0),
        edit(2, mask(6, 6, 5, 5), 0),
        edit(3, SMALL),
        edit(4, mask(5, 5, 4, 4)),
        edit(5, mask(7, 7, 4, 5)),
    ],
    "after a turn that changes nothing": [edit(0, NOTHING), edit(1, NOTHING), edit(2, SMALL), edit(3, WHOLE)],
    "self-attention shared": [
        edit(0, graded(), shared=True),
        edit(1, SMALL),
        edit(2, graded()),
        edit(3, SMALL, shared=True),
    ],
}


@pytest.mark.parametrize("edits", SESSIONS.values(), ids=SESSIONS)
@pytest.mark.parametrize("region", [pytest.param("support", marks=pytest.mark.full), "schedule"])
def test_later_turns_read_the_edits_of_the_turn_before(dense, edits, region):
    rows, own = [0, 1] * (1 + len(edits) // 2), control(edits)
    found = sparsely(dense, edits, rows, region=region)
    emulated = EmulatedUNet(copy.deepcopy(dense), own, halo=0, support=region == "support")
    assert (found - draw(emulated, own, rows)).abs().max() < EXACT


def test_a_later_turn_with_local_blend_leaves_the_earlier_turn_as_it_was(dense):
    """An earlier turn keeps its lists; LocalBlend reads its attention."""
    first = [edit(0, graded()), edit(1, SMALL)]
    edits, rows = [*first, edit(2, graded(), blend=0.6), edit(3, SMALL, blend=0.3)], [0, 1] * 3
    own = control(edits, blend_tokens=64)
    found = sparsely(dense, edits, rows, region="schedule", blend_tokens=64)
    emulated = EmulatedUNet(copy.deepcopy(dense), own, halo=0, support=False)
    assert (found - draw(emulated, own, rows)).abs().max() < EXACT
    alone = sparsely(dense, first, rows[:4], region="schedule")
    assert (found[:4] - alone).abs().max() < EXACT


@pytest.mark.parametrize("edits", SESSIONS.values(), ids=SESSIONS)
def test_sessions_as_lists_of_all_tokens_equal_the_dense_path(dense, as_lists, edits):
    rows = [0, 1] * (1 + len(edits) // 2)
    assert (sparsely(dense, edits, rows) - densely(dense, edits, rows)).abs().max() < EXACT
