import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.filter.choice import broken_bound, choose
from stages.filter.stage import Filter, FilterConfig, resolve_bounds
from stages.score import metrics as score_metrics
from stages.score.metrics import METRICS, scores_of
from stages.tasks import Bounds, Tasks
from tests.stages.tiny_tasks import tiny_task

LISTED = ("clip_direction", "clip_image", "change_inside", "change_outside")
TASK = tiny_task(
    metrics=LISTED, thresholds={"clip_image": {"min": 0.5, "max": 0.99}, "change_inside": {"min": 0.02}}
)
GOOD = {"clip_direction": 0.3, "clip_image": 0.9, "change_inside": 0.2, "change_outside": 0.01}

value = st.none() | st.floats(-1, 1)
candidates = st.lists(st.fixed_dictionaries(dict.fromkeys(METRICS, value)), min_size=1, max_size=5)
limits = st.none() | st.floats(-1, 1)
bounds = st.dictionaries(st.sampled_from(list(METRICS)), st.builds(Bounds, min=limits, max=limits))


def run(rows: list[tuple[str, list[dict]]], of: Tasks | None = None, **config) -> list[dict]:
    schema = pa.list_(pa.struct([(name, pa.float32()) for name in METRICS]))
    scores = [[{**dict.fromkeys(METRICS), **c} for c in candidates] for _, candidates in rows]
    table = pa.table(
        {
            "id": [str(i) for i in range(len(rows))],
            "task": [task for task, _ in rows],
            "scores": pa.array(scores, schema),
            "anchor_hash": pa.array([7] * len(rows), pa.int64()),
            "candidate_hashes": pa.array([list(range(len(c))) for _, c in rows], pa.list_(pa.int64())),
        }
    )
    return Filter(FilterConfig(**config), of or Tasks({"local": TASK}))(table).to_pylist()


def within(scores: dict, limits: dict) -> bool:
    for name, bound in limits.items():
        if scores[name] is None:
            if not METRICS[name].optional:
                return False
        else:
            low = -math.inf if bound.min is None else bound.min
            high = math.inf if bound.max is None else bound.max
            if not low <= scores[name] <= high:
                return False
    return True


@given(candidates, bounds)
def test_the_choice_is_the_best_of_the_passing(scores, limits):
    choice = choose(scores, limits)
    passing = [i for i, s in enumerate(scores) if within(s, limits)]
    assert (not choice.reason) == bool(passing)
    pool = passing or range(len(scores))
    directions = [s["clip_direction"] for s in scores]
    best = max((directions[i] for i in pool if directions[i] is not None), default=None)
    assert choice.index in pool
    assert directions[choice.index] == best
    assert choice.index == min(i for i in pool if directions[i] == best)
    if choice.reason:
        metric, side = choice.reason.rsplit("_", 1)
        if side == "missing":
            assert scores[choice.index][metric] is None
            return
        broken = getattr(limits[metric], {"low": "min", "high": "max"}[side])
        assert (scores[choice.index][metric] < broken) == (side == "low")


def test_ties_go_to_the_first_and_null_directions_come_last():
    assert choose([{"clip_direction": 0.1}, {"clip_direction": 0.1}], {}).index == 0
    assert choose([{"clip_direction": None}, {"clip_direction": -0.9}], {}).index == 1
    assert choose([{"clip_direction": None}, {"clip_direction": None}], {}).index == 0


def test_a_passing_candidate_beats_a_better_one_that_breaks_a_bound():
    scores = [{**GOOD, "clip_direction": 0.9, "change_outside": 0.5}, GOOD]
    assert choose(scores, {"change_outside": Bounds(max=0.1)}).index == 1


def test_a_row_is_kept_with_its_choice():
    worse = {**GOOD, "clip_direction": 0.1}
    [row] = run([("local", [worse, GOOD])])
    assert (row["id"], row["status"], row["reason"], row["choice"]) == ("0", "kept", "", 1)
    assert row["rank"] == pytest.approx(GOOD["clip_direction"])
    assert (row["anchor_hash"], row["target_hash"]) == (7, 1), "the chosen candidate's"


def test_a_pair_in_which_nothing_changed_is_rejected():
    unchanged = {"clip_direction": 0.0, "clip_image": 1.0, "change_inside": 0.0, "change_outside": 0.0}
    [row] = run([("local", [unchanged])])
    assert (row["status"], row["reason"], row["choice"]) == ("rejected", "clip_image_high", None)
    [row] = run([("local", [{**unchanged, "clip_image": 0.98}])])
    assert row["reason"] == "change_inside_low"


def test_a_change_of_the_outside_is_rejected_however_good_clip_finds_it():
    [row] = run([("local", [{**GOOD, "change_outside": 0.2}])], default={"change_outside": {"max": 0.05}})
    assert (row["status"], row["reason"]) == ("rejected", "change_outside_high")


def test_what_was_not_measured_does_not_count_as_good():
    [row] = run([("local", [{**GOOD, "change_outside": None}])], default={"change_outside": {"max": 1.0}})
    assert (row["status"], row["reason"]) == ("rejected", "change_outside_missing")


def test_a_metric_whose_model_the_manifest_leaves_out_is_skipped():
    assert broken_bound({"dino": None}, {"dino": Bounds(min=0.4)}) == ""
    assert broken_bound({"dino": 0.3}, {"dino": Bounds(min=0.4)}) == "dino_low"


def test_a_bound_on_a_metric_that_the_task_does_not_list_is_not_used():
    [row] = run([("local", [GOOD])], default={"present": 0.5})
    assert row["status"] == "kept"


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_score_fails_its_row(value):
    [row] = run([("local", [{**GOOD, "clip_image": value}])])
    assert row["status"] == "failed"


def test_a_metric_that_is_not_a_number_fails_its_row_only():
    broken, good = run([("local", [GOOD, {**GOOD, "clip_image": np.nan}]), ("local", [GOOD])])
    assert (broken["status"], good["status"]) == ("failed", "kept")
    assert "clip_image of candidate 1" in broken["reason"]


def test_a_row_without_candidates_fails():
    [row] = run([("local", [])])
    assert row["status"] == "failed"
    assert "no candidate" in row["reason"]


def test_later_bounds_replace_the_sides_that_they_state():
    config = FilterConfig(
        default={"clip_image": 0.6, "clip_direction": 0.1}, tasks={"local": {"clip_direction": 0.2}}
    )
    assert resolve_bounds(TASK, config) == {
        "clip_direction": Bounds(min=0.2),
        "clip_image": Bounds(min=0.6, max=0.99),
        "change_inside": Bounds(min=0.02),
    }


def test_the_bounds_survive_a_dump_of_the_config():
    config = FilterConfig(default={"clip_image": 0.6})
    again = FilterConfig.model_validate(config.model_dump(mode="json"))
    assert resolve_bounds(TASK, again) == resolve_bounds(TASK, config)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"default": {"clip_dirction": 0.2}}, "filter.default.clip_dirction"),
        ({"tasks": {"local": {"clip": 0.2}}}, "filter.tasks.local.clip"),
    ],
)
def test_an_unknown_metric_is_an_error_that_names_its_key(section, key):
    with pytest.raises(ValidationError, match=key):
        FilterConfig(**section)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"tasks": {"locl": {"clip_image": 0.2}}}, "filter.tasks.locl"),
        ({"tasks": {"local": {"present": 0.2}}}, "filter.tasks.local.present"),
    ],
)
def test_an_unknown_task_or_a_metric_it_lacks_is_an_error_that_names_its_key(section, key):
    with pytest.raises(ValueError, match=key):
        Filter(FilterConfig(**section), Tasks({"local": TASK}))


def test_bounds_of_a_task_outside_the_mixture_are_not_used():
    config = FilterConfig(tasks={"remove": {"absent": {"max": 0.1}}})
    assert Filter(config, Tasks({"local": TASK}, known=["remove"])).bounds.keys() == {"local"}


def test_a_further_stage_s_scores_are_read_beside_the_first_one_s(monkeypatch):
    monkeypatch.setattr(score_metrics, "SCORE_COLUMNS", {"score": "scores", "another": "judgements"})
    row = {"scores": [{"change": 0.1}, {"change": 0.2}], "judgements": [{"judged": 1.0}, {"judged": 0.0}]}
    assert scores_of(row) == [{"change": 0.1, "judged": 1.0}, {"change": 0.2, "judged": 0.0}]
    assert scores_of({"scores": None}) == []


def test_a_pair_bad_backwards_is_kept_and_its_way_back_rejected():
    metrics = (*LISTED, "inverse_present", "inverse_absent")
    bounds = {"inverse_present": {"min": 0.3}, "inverse_absent": {"max": 0.2}}
    back = {"index": 1, "instruction": "add {original_object}"}
    tasks = Tasks({"local": tiny_task(metrics=metrics, thresholds=bounds, inverse=back)})
    candidates = [
        GOOD | {"inverse_present": 0.5, "inverse_absent": 0.1},
        GOOD | {"inverse_present": 0.1, "inverse_absent": 0.1},
        GOOD | {"inverse_present": 0.5, "inverse_absent": 0.3},
        GOOD | {"inverse_absent": 0.1},
    ]
    kept = run([("local", [candidate]) for candidate in candidates], of=tasks)
    assert {row["status"] for row in kept} == {"kept"}
    assert [row["inverse_reason"] for row in kept] == [
        "",
        "inverse_present_low",
        "inverse_absent_high",
        "inverse_present_missing",
    ]
    [looser] = run(
        [("local", [candidates[1]])], of=tasks, tasks={"local": {"inverse_present": {"min": 0.05}}}
    )
    assert looser["inverse_reason"] == "", "a manifest's bound replaces the task file's"
