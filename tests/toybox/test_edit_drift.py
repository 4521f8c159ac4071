from itertools import pairwise

import numpy as np

from toybox.evaluation.held_out_edits import sample_edits
from toybox.studies.edit_drift import SETTINGS, TURNS, eaten, label, sample_sessions, thresholded, untouched


def test_a_session_s_edits_follow_each_other_and_leave_something_untouched():
    for session in sample_sessions(3):
        assert [edit.task for edit in session] == list(TURNS)
        for first, second in pairwise(session):
            assert first.after == second.before
        mask = untouched(session)
        assert 0.1 < mask.mean() < 0.95
        start = session[0].pictures[0].astype(int)
        for edit in session:
            assert np.abs(edit.pictures[1].astype(int) - start).sum(-1)[mask].max() <= 24 * len(TURNS)


def test_true_pictures_are_done_and_not_eaten_and_a_faint_edit_is_eaten():
    edits = sample_edits(2, tasks=("remove", "color"))
    true = [edit.pictures[1] for edit in edits]
    for by_task in eaten(edits, true).values():
        assert by_task["all"] == [4, 0, 0]
    before, after = edits[0].pictures
    faint = np.round(before * 0.99 + after * 0.01).astype(np.uint8)
    assert np.array_equal(thresholded(before, faint, (0.1, 5)), before)
    assert np.array_equal(thresholded(before, faint, None), faint)
    assert [label(setting) for setting in SETTINGS][:2] == ["none", "alpha 0.03, kernel 1"]
