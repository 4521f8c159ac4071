"""Which row is to blame for a lost worker: only one whose process ended twice while it ran alone.

A unit is run by the rules that workers keep, and lost at moments that hypothesis chooses.
"""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.jobs import Unit
from pipeline.engine.losses import CONVICTING, MOST_HANGS, MOST_LOSSES, MOST_ROWS, WHOLE, Died, Losses
from pipeline.engine.notes import Note, Notes
from pipeline.store.folder import RunFolder

KILLED, HUNG, SPOILED = Died("killed"), Died("no batch ended", hung=True), Died("CUDA error", by_itself=True)


class Job:
    """The part of a job that losses are told by."""

    class step:  # noqa: N801
        name = "draw"

    def __init__(self, folder) -> None:
        self.folder = RunFolder(folder)


def attempt(
    notes: Notes, unit: Unit, rows: list[str], deadly: set[str], killed_after: int | None, alone: Counter[str]
) -> bool:
    """Whether a worker ends well. It leaves the notes that ``pipeline.engine.worker`` leaves.

    ``killed_after`` steps it is killed: a step is to begin a row alone, or to end one. ``alone`` counts the
    rows that were running alone.
    """
    steps = 0

    def over() -> bool:
        nonlocal steps
        steps += 1
        return killed_after is not None and steps > killed_after

    if not unit.careful:
        notes.leave(unit.number, Note(0))
        return not over() and not deadly & set(rows)
    first = [row for row in rows if row not in unit.suspects and row not in unit.poison]
    for finished, row in enumerate([*first, *(r for r in rows if r in unit.suspects)]):
        notes.leave(unit.number, Note(finished, row))
        if over() or row in deadly:
            alone[row] += 1
            return False
        notes.leave(unit.number, Note(finished + 1))
        if over():
            return False
    return True


def run(folder, rows: list[str], deadly: set[str], kills, died: Died = KILLED) -> tuple[Unit | None, int]:
    """The unit as it was last run, None if it was given up, and how many workers it lost.

    Whatever happens, who is convicted ended its process twice alone.
    """
    job = Job(folder)
    notes, losses, unit, lost = Notes(job.folder, "draw"), Losses(job), Unit(3, (3,)), 0
    notes.path(3).parent.mkdir(parents=True, exist_ok=True)
    kills, alone = iter(kills), Counter[str]()
    while not attempt(notes, unit, rows, deadly, next(kills, None), alone):
        lost += 1
        unit = losses.again(unit, died)
        if unit is None:
            return None, lost
        assert all(alone[row] == CONVICTING for row in unit.poison)
    return unit, lost


ROWS = [f"row {n}" for n in range(8)]


@given(kills=st.lists(st.integers(0, 20), max_size=20), deadly=st.sets(st.sampled_from(ROWS), max_size=2))
def test_whatever_is_killed_when_every_unit_comes_to_an_end(tmp_path_factory, kills, deadly):
    _, lost = run(tmp_path_factory.mktemp("run"), ROWS, deadly, kills)
    assert lost <= (MOST_LOSSES + 1) * (MOST_ROWS + 1)


@pytest.mark.parametrize("after", range(9))
def test_a_killer_that_strikes_always_at_one_moment_convicts_nobody(tmp_path, after):
    unit, lost = run(tmp_path, ROWS, set(), [after] * (MOST_LOSSES - 1))
    assert unit is None or unit.poison == ()
    assert unit is not None or after == 0, "the unit is given up only if no worker gets anywhere"
    assert lost < MOST_LOSSES


def test_four_kills_and_more_cost_nothing(tmp_path):
    for number, kills in enumerate(([0, 0, 0, 0], [0, 0, 0, 5, 5, 5, 5], [0, 0, 0, 2, 1, 0, 9, 4, 4, 4])):
        unit, lost = run(tmp_path / str(number), ROWS, set(), kills)
        assert unit is not None
        assert unit.poison == ()
        assert lost == len(kills)


@pytest.mark.parametrize("died", [KILLED, HUNG, SPOILED])
@given(
    rows=st.integers(1, 8),
    deadly=st.sets(st.sampled_from(ROWS), min_size=1, max_size=MOST_ROWS),
)
def test_rows_that_end_their_process_are_found_and_no_others(tmp_path_factory, died, rows, deadly):
    there = deadly & set(ROWS[:rows])
    unit, lost = run(tmp_path_factory.mktemp("run"), ROWS[:rows], there, [], died)
    assert unit is not None
    assert set(unit.poison) == there
    assert lost <= WHOLE + 1 + 2 * len(there)


@given(kills=st.lists(st.integers(0, 20), max_size=3), guilty=st.sampled_from(ROWS))
def test_a_guilty_row_is_found_also_after_kills_and_no_other_is_blamed(tmp_path_factory, kills, guilty):
    unit, _ = run(tmp_path_factory.mktemp("run"), ROWS, {guilty}, kills)
    assert unit is not None
    assert unit.poison == (guilty,)


@pytest.mark.parametrize("died", [KILLED, HUNG, SPOILED])
def test_where_every_row_ends_its_process_the_unit_is_given_up_soon(tmp_path, died):
    unit, lost = run(tmp_path, ROWS, set(ROWS), [], died)
    assert unit is None
    assert lost <= WHOLE + 1 + MOST_ROWS + 1


def test_a_unit_is_given_up_when_it_loses_its_workers_outside_of_rows(tmp_path):
    job = Job(tmp_path)
    for died, most in ((KILLED, MOST_LOSSES + 1), (HUNG, MOST_HANGS)):
        losses, unit, lost = Losses(job), Unit(0, (0,)), 0
        while unit is not None:
            unit, lost = losses.again(unit, died), lost + 1
            assert unit is None or unit.poison == ()
        assert lost == most


@pytest.mark.parametrize("text", ["", '{"finished": 1', "[]", '{"finished": 1, "ro": "a"}', "7", "null"])
def test_a_note_cut_short_blames_nobody(tmp_path, text):
    notes = Notes(RunFolder(tmp_path), "draw")
    notes.path(0).parent.mkdir()
    notes.path(0).write_text(text)
    assert notes.read(0) is None
