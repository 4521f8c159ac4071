"""Which rows are shown, and what is near a bound."""

from io import BytesIO

import pyarrow as pa
import pytest
from PIL import Image

from pipeline.views import outcomes
from pipeline.views.gallery import choose_rows, is_near, thumbnail
from pipeline.views.outcomes import sample_parts, survey
from pipeline.views.rows import best_candidate, records
from pipeline.views.run import open_state
from stages.filter.model import TaskModel
from stages.pictures.png import decode_rgb
from stages.tasks import Bounds
from tests.toybox_runs import Run


@pytest.mark.parametrize(
    ("value", "bounds", "near"),
    [
        (0.20, Bounds(min=0.21), True),
        (0.23, Bounds(min=0.21), True),
        (0.30, Bounds(min=0.21), False),
        (0.96, Bounds(max=0.99), True),
        (0.5, Bounds(), False),
        (0.002, Bounds(max=0.0), True),
    ],
)
def test_near_is_a_tenth_of_the_bound(value, bounds, near):
    assert is_near({"clip_image": value}, {"clip_image": bounds}) == near
    assert not is_near({}, {"clip_image": bounds})


def test_the_candidate_shown_is_the_one_that_would_be_chosen():
    scores = [{"clip_direction": 0.1}, {"clip_direction": 0.3}, {"clip_direction": None}]
    assert best_candidate({"scores": scores}) == 1
    assert best_candidate({"scores": scores, "choice": None}) == 1
    assert best_candidate({"scores": scores, "choice": 0}) == 0
    assert best_candidate({"scores": None}) is None
    opposite = TaskModel(threshold=0, curves={"clip_direction": {"at": [-1, 1], "adds": [1, -1]}})
    assert best_candidate({"scores": scores, "task": "color"}, {"color": opposite}) == 0
    assert best_candidate({"scores": scores, "task": "add"}, {"color": opposite}) == 1


def test_every_planned_row_has_one_outcome(toybox_run: Run):
    state = open_state(str(toybox_run.folder))
    found = survey(state, range(state.plan.parts))
    assert len({row.id for row in found}) == state.plan.rows
    assert all(row.outcome.split(":")[1] in ("kept", "rejected", "failed") for row in found)


def test_rows_are_drawn_evenly_over_tasks_and_outcomes_and_by_seed(toybox_run: Run):
    state = open_state(str(toybox_run.folder))
    found = survey(state, range(state.plan.parts))
    everything = choose_rows(found, {}, 1000, seed=0)
    assert len(everything) == state.plan.rows
    few = choose_rows(found, {}, 11, seed=0)
    assert len({row.task for row in few}) >= 8
    assert few == choose_rows(found, {}, 11, seed=0)


def test_a_small_run_is_looked_at_as_a_whole_a_large_one_by_drawn_parts(make_run, monkeypatch):
    run = make_run(captions=[f"a red cube number {i}" for i in range(80)])
    state = run.generate()
    assert sample_parts(state, 1, seed=0) == list(range(20))
    monkeypatch.setattr(outcomes, "SAMPLED", 30)
    few = sample_parts(state, 1, seed=0)
    assert len(few) == 8, "of 4 rows each"
    assert few == sorted(set(few)) == sample_parts(state, 1, seed=0) != sample_parts(state, 1, seed=1)
    assert len(sample_parts(state, 50, seed=0)) == 13
    assert len(sample_parts(state, 200, seed=0)) == 20


def test_parts_that_are_farthest_are_drawn_first(make_run, monkeypatch):
    run = make_run(captions=[f"a red cube number {i}" for i in range(80)])
    state = run.generate(wave=3)
    monkeypatch.setattr(outcomes, "SAMPLED", 20)
    few = sample_parts(state, 1, seed=0)
    assert {0, 1, 2} < set(few)
    assert len(few) == 5


def test_only_row_groups_of_chosen_rows_are_read(toybox_run: Run):
    state = open_state(str(toybox_run.folder))
    (row, *_) = [row for row in survey(state, [0]) if row.scores]
    path = state.path(state.steps["edit"], 0)
    (record,) = records(path, ["id", "anchor"], pa.array([row.id]))
    assert record["id"] == row.id
    assert decode_rgb(record["anchor"]).shape == (64, 64, 3)
    assert not list(records(path, ["id"], pa.array(["unknown"])))


def test_thumbnails_keep_small_pictures_and_shrink_large_ones():
    import base64

    import numpy as np

    for side, expected in ((64, 64), (512, 160)):
        url = thumbnail(np.zeros((side, side, 3), np.uint8))
        assert Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).size == (expected, expected)
