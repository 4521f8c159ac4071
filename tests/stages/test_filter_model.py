"""``filter.model``: a calibrated filter decides by probability, and is read with care."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.filter.choice import choose, objection, rank
from stages.filter.model import Curve, FilterModel, TaskModel, read_model
from stages.filter.stage import Filter, FilterConfig, resolve_bounds
from stages.score.metrics import METRICS
from stages.tasks import Bounds, Tasks
from tests.stages.test_filter import GOOD, run
from tests.stages.tiny_tasks import tiny_task

RISING = Curve(at=(0.0, 0.5, 1.0), adds=(-4.0, 0.0, 1.0))
MODEL = TaskModel(threshold=0.5, intercept=0.5, curves={"clip_image": RISING})
FILE = {"version": 1, "tasks": {"local": MODEL.model_dump(mode="json", exclude_none=True)}}

number = st.floats(-50, 50)
curves = st.dictionaries(
    st.sampled_from(list(METRICS)),
    st.lists(st.tuples(st.floats(-1, 1), number), min_size=1, max_size=5, unique_by=lambda point: point[0]),
    max_size=4,
)


def model_of_points(points: dict, missing: float | None = 0.0) -> TaskModel:
    made = {
        metric: Curve(
            at=tuple(x for x, _ in sorted(of)), adds=tuple(y for _, y in sorted(of)), missing=missing
        )
        for metric, of in points.items()
    }
    return TaskModel(threshold=0.5, curves=made)


def test_a_curve_is_straight_between_its_points_and_constant_beyond():
    values = [-9, 0.0, 0.25, 0.5, 0.75, 1.0, 9]
    odds = [MODEL.log_odds({"clip_image": value}) for value in values]
    assert odds == pytest.approx([-3.5, -3.5, -1.5, 0.5, 1.0, 1.5, 1.5])
    assert MODEL.probability({"clip_image": 0.5}) == pytest.approx(1 / (1 + math.exp(-0.5)))


@given(curves, st.dictionaries(st.sampled_from(list(METRICS)), st.none() | st.floats(-1, 1)))
def test_a_probability_is_one_whatever_the_scores(points, scores):
    assert 0 <= model_of_points(points).probability(scores) <= 1
    needed = model_of_points(points, missing=None)
    lacking = [metric for metric in points if scores.get(metric) is None]
    assert needed.missing(scores) in lacking or (not lacking and needed.missing(scores) == "")
    assert not lacking or needed.probability(scores) == 0


def test_the_likeliest_candidate_is_chosen_and_its_probability_ranks_the_row():
    likely = {**GOOD, "clip_image": 0.95, "clip_direction": 0.1}
    [row] = run([("local", [{**GOOD, "clip_image": 0.6, "clip_direction": 0.9}, likely])], model=FILE)
    assert (row["status"], row["choice"], row["target_hash"]) == ("kept", 1, 1)
    assert row["rank"] == pytest.approx(MODEL.probability(likely), rel=1e-6)


def test_a_row_is_rejected_as_calibrated_low_if_its_best_candidate_is_unlikely():
    [row] = run([("local", [{**GOOD, "clip_image": 0.4}, {**GOOD, "clip_image": 0.3}])], model=FILE)
    assert (row["status"], row["reason"], row["choice"]) == ("rejected", "calibrated_low", None)


def test_it_replaces_the_bounds_of_the_metrics_that_it_knows_wherever_they_were_set():
    tight = {"default": {"clip_image": 0.97}, "tasks": {"local": {"clip_image": 0.98}}}
    [row] = run([("local", [GOOD])], **tight)
    assert row["reason"] == "clip_image_low"
    [row] = run([("local", [GOOD])], **tight, model=FILE)
    assert row["status"] == "kept"


def test_the_bounds_of_other_metrics_and_of_guards_stay():
    known = {"clip_direction": RISING, "change_inside": RISING}
    model = TaskModel(threshold=0.0, curves=known, bounds={"clip_image": {"min": 0.1}})
    config = FilterConfig(
        default={"clip_direction": 0.9, "change_inside": 0.3, "change_outside": {"max": 0.01}},
        model=FilterModel(version=1, tasks={"local": model}),
    )
    task = tiny_task(metrics=("clip_direction", "clip_image", "change_inside", "change_outside"))
    assert resolve_bounds(task, config) == {
        "clip_image": Bounds(min=0.1),
        "change_inside": Bounds(min=0.3),
        "change_outside": Bounds(max=0.01),
    }
    assert METRICS["change_inside"].guard


def test_a_task_that_was_not_calibrated_keeps_its_bounds_and_its_rank():
    config = FilterConfig(default={"clip_image": 0.8}, model=FILE)
    tasks = Tasks(
        {
            "local": tiny_task(metrics=("clip_image",)),
            "add": tiny_task("add", index=2, metrics=("clip_image",)),
        }
    )
    bounds = Filter(config, tasks).bounds
    assert bounds == {"local": {}, "add": {"clip_image": Bounds(min=0.8)}}
    assert rank({"clip_direction": 0.3}, None) == 0.3


def test_a_needed_metric_without_a_value_is_told_and_one_with_a_default_is_not_needed():
    assert objection({"clip_image": None}, {}, MODEL) == "clip_image_missing"
    spared = TaskModel(
        threshold=0.5, intercept=0.5, curves={"clip_image": RISING.model_copy(update={"missing": 0.0})}
    )
    assert objection({"clip_image": None}, {}, spared) == ""
    assert choose([{"clip_image": None}, {"clip_image": 0.6}], {}, MODEL).index == 1


@given(curves, st.floats(0, 1))
def test_a_file_and_the_lock_s_copy_of_it_decide_alike(tmp_path_factory, points, value):
    path = tmp_path_factory.mktemp("model") / "model.json"
    path.write_text(
        json.dumps({"version": 1, "tasks": {"local": model_of_points(points).model_dump(mode="json")}})
    )
    config = FilterConfig(model=str(path))
    path.unlink()
    locked = FilterConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert locked == config
    scores = dict.fromkeys(METRICS, value)
    assert locked.model.tasks["local"].log_odds(scores) == model_of_points(points).log_odds(scores)


CURVE = {"at": [0, 1], "adds": [0, 1]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is not a file that editpairs calibrate wrote"),
        ("[1]", "is not a file that editpairs calibrate wrote"),
        ("{", "is not valid YAML"),
        ({"version": 2, "tasks": {}}, "its version is 2, this editpairs reads 1: calibrate again"),
        ({"tasks": {}}, "its version is None"),
        ({"version": 1, "tasks": {"local": {}}}, "key 'tasks.local.threshold': Field required"),
        ({"version": 1, "tasks": {"local": {"threshold": math.nan}}}, "key 'tasks.local.threshold'"),
        ({"version": 1, "tasks": {"local": {"threshold": 2}}}, "key 'tasks.local.threshold'"),
        (
            {"version": 1, "tasks": {"local": {"threshold": 0, "curves": {"clip": CURVE}}}},
            "curves.clip: unknown metric",
        ),
        (
            {"version": 1, "tasks": {"local": {"threshold": 0, "bounds": {"clip": 1}}}},
            "bounds.clip: unknown metric",
        ),
        (
            {
                "version": 1,
                "tasks": {"local": {"threshold": 0, "curves": {"dino": {"at": [1, 0], "adds": [0, 1]}}}},
            },
            "the numbers of 'at' must ascend",
        ),
        (
            {
                "version": 1,
                "tasks": {"local": {"threshold": 0, "curves": {"dino": {"at": [0], "adds": [0, 1]}}}},
            },
            "'at' has 1 numbers and 'adds' 2",
        ),
        ({"version": 1, "tasks": {}, "more": 1}, "key 'more'"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it_and_the_key(tmp_path, content, told):
    path = tmp_path / "model.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValidationError) as error:
        FilterConfig(model=str(path))
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_a_folder_and_something_else_are_errors(tmp_path):
    for value, told in (
        (str(tmp_path / "no.json"), "cannot be read"),
        (str(tmp_path), "cannot be read"),
        (3, "name a file"),
    ):
        with pytest.raises(ValidationError, match=told):
            FilterConfig(model=value)


def test_a_metric_that_the_task_does_not_compute_and_an_unknown_task_are_errors():
    with pytest.raises(
        ValueError, match=r"filter\.model\.tasks\.local: the task does not compute .* clip_image"
    ):
        Filter(FilterConfig(model=FILE), Tasks({"local": tiny_task(metrics=("present",))}))
    with pytest.raises(ValueError, match=r"filter\.model\.tasks\.local: there is no such task"):
        Filter(FilterConfig(model=FILE), Tasks({"add": tiny_task("add", index=2)}))
    Filter(FilterConfig(model=FILE), Tasks({"add": tiny_task("add", index=2)}, known=["local"]))


def test_a_model_that_needs_what_nothing_measures_is_refused():
    from stages.score.stage import ScoreConfig

    needs = {"version": 1, "tasks": {"local": {"threshold": 0, "curves": {"dino": CURVE}}}}
    weights = {"model": "./x"}
    sections = {
        "score": ScoreConfig(clip=weights, grounding={**weights, "box_threshold": 0.2, "text_threshold": 0.2})
    }
    tasks = Tasks({"local": tiny_task(metrics=("dino",))})
    [told] = Filter.conflicts(FilterConfig(model=needs), tasks, sections)
    assert told.startswith("filter.model.tasks.local.curves.dino: nothing measures it: set score.dino")
    needs["tasks"]["local"]["curves"]["dino"] = {**CURVE, "missing": 0.0}
    assert not [*Filter.conflicts(FilterConfig(model=needs), tasks, sections)]


def test_read_model_finds_what_calibrate_wrote(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(FILE))
    assert read_model(path).tasks["local"] == MODEL
    assert np.isclose(read_model(path).tasks["local"].margin({"clip_image": 0.5}), 0.5)
