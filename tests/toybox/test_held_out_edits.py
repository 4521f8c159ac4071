"""Held-out edits with known truth: right and done are what they say; the judge agrees with the renderer."""

from dataclasses import replace

import numpy as np
import pytest

from toybox.evaluation.held_out_edits import TASKS, figures, sample_edits
from toybox.evaluation.judge import Judge
from toybox.world.reading import content_of
from toybox.world.scene import is_held_out

EDITS = sample_edits(6)


def test_edits_are_of_every_task_from_many_held_out_scenes():
    assert [edit.task for edit in EDITS] == [task for task in TASKS for _ in range(6)]
    assert len({edit.scene for edit in EDITS}) >= len(EDITS) / 2
    assert all(is_held_out(edit.after if edit.task == "add" else edit.before) for edit in EDITS)
    assert sample_edits(6) == EDITS


@pytest.mark.parametrize("edit", EDITS[::4], ids=lambda edit: edit.instruction)
def test_the_truth_is_done_and_right_and_the_input_is_neither(edit):
    before, after = content_of(edit.before), content_of(edit.after)
    assert edit.is_done(after)
    assert edit.is_right(after)
    assert not edit.is_done(before)
    assert not edit.is_right(before)
    assert edit.error_outside(edit.pictures[1]) == 0 or not edit.outside.any()


def test_a_change_beside_the_edit_is_done_but_not_right():
    for edit in EDITS:
        other = "snow" if content_of(edit.after).background != "snow" else "desert"
        seen = replace(content_of(edit.after), background=other)
        if edit.task != "background":
            assert edit.is_done(seen)
            assert not edit.is_right(seen)


def test_the_error_outside_is_measured_away_from_the_change():
    edit = next(edit for edit in EDITS if edit.task == "color")
    before, after = edit.pictures
    assert edit.error_outside(before) < 1e-3
    assert edit.error_outside(np.clip(after.astype(int) + 51, 0, 255).astype(np.uint8)) > 0.1


def test_the_judge_finds_the_true_pictures_right():
    pictures = [edit.pictures[1] for edit in EDITS]
    found = figures(EDITS, pictures, Judge.load().look(pictures))
    assert found["all"]["edits"] == len(EDITS)
    assert found["all"]["right"]["mean"] > 0.9
    assert found["all"]["right"]["low"] <= found["all"]["right"]["mean"] <= found["all"]["right"]["high"]
    assert found["all"]["outside"]["mean"] == 0
