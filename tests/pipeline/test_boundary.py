"""Boundary cases: the rows nearest to a bound, one on each side."""

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.views.boundary import boundary_cases
from pipeline.views.outcomes import Outcome
from stages.tasks import Bounds
from tests.toybox_runs import ROOT

SCORES = st.lists(st.floats(-1, 1), max_size=12)


@given(SCORES, st.floats(-1, 1), st.sampled_from(["min", "max"]))
def test_cases_are_the_nearest_rows_on_either_side(scores, limit, side):
    rows = [
        Outcome(0, f"{number:03d}", "local", scores={"dino": score}) for number, score in enumerate(scores)
    ]
    cases = boundary_cases(rows, {"local": {"dino": Bounds(**{side: limit})}})
    sign = 1 if side == "min" else -1
    for inside in (True, False):
        expected = [abs(s - limit) for s in scores if (sign * (s - limit) >= 0) == inside]
        found = [abs(c.row.scores["dino"] - limit) for c in cases if c.inside == inside]
        assert found == ([min(expected)] if expected else [])


def test_rows_of_other_tasks_and_without_the_score_are_no_cases():
    rows = [Outcome(0, "a", "color", scores={"dino": 0.5}), Outcome(0, "b", "local")]
    assert boundary_cases(rows, {"local": {"dino": Bounds(min=0.5)}}) == []


def test_sweep_draws_a_sheet_of_them(toybox_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "boundary.png"
    sets = [part for key in toybox_run.settings for part in ("--set", key)]
    told = CliRunner().invoke(app, ["sweep", "manifests/toybox.yaml", *sets, "--sheet", str(path)])
    assert told.exit_code == 0, told.output
    assert "rows next to a bound" in told.output
    assert Image.open(path).size[1] > 2000
