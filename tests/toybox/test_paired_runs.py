from toybox.evaluation.evaluate_edits import JudgedEdit
from toybox.studies.paired_runs import Planned, joined, of_candidates, of_rows

ROWS = {name: Planned(f"caption of {name}", "color") for name in ("kept", "wrong", "rejected", "not drawn")}


def edit(row: str, candidate: int, *, right: bool, chosen: bool) -> JudgedEdit:
    return JudgedEdit(row, "color", candidate, right, chosen, decided=True)


EDITS = [
    edit("kept", 0, right=False, chosen=False),
    edit("kept", 1, right=True, chosen=True),
    edit("wrong", 0, right=False, chosen=True),
    edit("rejected", 0, right=True, chosen=False),
    edit("of a part that the other run has not reached", 0, right=True, chosen=True),
]


def test_a_planned_row_that_was_not_drawn_counts_as_not_kept():
    figures = of_rows(EDITS, ROWS)
    assert dict(zip(figures.ids, figures.values.tolist(), strict=True)) == {
        "kept": [1, 1],
        "wrong": [1, 0],
        "rejected": [0, 0],
        "not drawn": [0, 0],
    }


def test_every_candidate_of_the_planned_rows_is_judged():
    figures = of_candidates(EDITS, ROWS)
    assert figures.ids == ["kept 0", "kept 1", "wrong 0", "rejected 0"]
    assert figures.values[:, 0].tolist() == [0, 1, 0, 1]


def test_equal_rows_of_two_runs_stay_apart():
    figures = of_rows(EDITS, ROWS)
    both = joined([figures, figures])
    assert len(set(both.ids)) == 2 * len(ROWS)
    assert both.values.shape == (2 * len(ROWS), 2)
