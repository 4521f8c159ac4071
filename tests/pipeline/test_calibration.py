"""Calibration: what is learned from verdicts, and that it is reported honestly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibration.bounds import PEELED, peel
from pipeline.calibration.calibrate import calibrate
from pipeline.calibration.crossed import cross_validated, decide
from pipeline.calibration.examples import Examples, examples_of
from pipeline.calibration.folds import LEAST_ROWS, check_enough, folds
from pipeline.calibration.held_out import fitted
from pipeline.errors import UserError
from pipeline.verdicts.estimate import estimate
from stages.filter.stage import FilterConfig
from stages.score.metrics import METRICS
from tests.pipeline.judged_rows import LISTED, TASKS, judged, sampled

STRICT = FilterConfig(default={"clip_text_output": 0.82, "clip_direction": 0.45})
"""Bounds by hand: one is too tight, the other is on a metric that tells nothing."""
NEEDED = {"local": [], "color": []}


def test_bounds_by_hand_throw_right_pairs_away_and_a_calibrated_filter_keeps_them():
    rows = sampled(240)
    before = estimate(decide(rows, TASKS, STRICT, None))
    after = estimate(cross_validated(rows, TASKS, STRICT, 0.95))
    assert before.recall.value < 0.75
    assert after.recall.value > 0.93
    assert after.precision.value > 0.93
    everything = estimate(decide(rows, TASKS, FilterConfig(), None))
    assert after.precision.value > everything.precision.value + 0.05


def test_what_is_reported_for_captions_held_out_holds_for_other_rows():
    told = estimate(cross_validated(sampled(240), TASKS, STRICT, 0.95))
    model = calibrate(sampled(240), TASKS, STRICT, 0.95).model
    true = estimate(decide(sampled(4000, seed=1), TASKS, STRICT, model))
    assert true.precision.value == pytest.approx(told.precision.value, abs=0.04)
    assert true.recall.value == pytest.approx(told.recall.value, abs=0.06)


def test_more_precision_costs_recall():
    rows = sampled(300, tells=1.0)
    recalls, thresholds = [], []
    for precision in (0.8, 0.9, 0.95):
        model = calibrate(rows, TASKS, FilterConfig(), precision).model
        recalls.append(estimate(decide(rows, TASKS, FilterConfig(), model)).recall.value)
        thresholds.append(model.tasks["local"].threshold)
    assert recalls == sorted(recalls, reverse=True)
    assert thresholds == sorted(thresholds)
    assert recalls[0] > recalls[-1]


def test_a_task_of_few_judged_rows_keeps_its_bounds():
    rows = [*sampled(200, tasks=("local",)), *sampled(LEAST_ROWS - 1, seed=1, tasks=("color",))]
    calibrated = calibrate(rows, TASKS, STRICT, 0.95)
    assert list(calibrated.model.tasks) == ["local"]
    assert calibrated.left_out == {"color": f"{LEAST_ROWS - 1} judged rows, {LEAST_ROWS} are needed"}


def test_a_task_whose_scores_tell_nothing_keeps_its_bounds_if_more_precision_is_wanted():
    rows = sampled(200, tells=0.0)
    calibrated = calibrate(rows, TASKS, STRICT, 0.99)
    assert not calibrated.model.tasks
    assert set(calibrated.left_out) == {"local", "color"}
    assert "0.99" in calibrated.left_out["local"]


def test_a_task_without_a_wrong_verdict_learns_from_the_others():
    rows = sampled(160)
    fine = [replace(row, right=(True, True)) if row.row.task == "color" else row for row in rows]
    curve = calibrate(fine, TASKS, FilterConfig(), 0.9).model.tasks["color"].curves["clip_text_output"]
    assert curve.adds[-1] > curve.adds[0] + 0.5


@settings(max_examples=10)
@given(st.lists(st.booleans(), min_size=40, max_size=40), st.sampled_from([0.3, 3.0]))
def test_a_curve_never_runs_against_its_metric_s_sense(verdicts, size):
    rows = [replace(row, right=tuple(verdicts[2 * k : 2 * k + 2])) for k, row in enumerate(sampled(20))]
    for model in fitted(examples_of(rows, TASKS), NEEDED, size).values():
        for metric, curve in model.curves.items():
            steps = np.diff(curve.adds)
            sense = METRICS[metric].sense
            assert sense != "more" or (steps >= 0).all()
            assert sense != "less" or (steps <= 0).all()


def test_a_curve_goes_on_where_a_fault_may_lie_and_not_where_a_value_would_excuse_one():
    curve = fitted(examples_of(sampled(200), TASKS), NEEDED, 1.0)["local"].curves["clip_text_output"]
    highest = max(
        s["clip_text_output"] for row in sampled(200) if row.row.task == "local" for s in row.row.scores
    )
    assert curve.at[-1] == pytest.approx(highest, rel=1e-4)
    assert curve.at[0] < 0
    lowest = np.interp(0.6, curve.at, curve.adds)
    assert np.interp(0.3, curve.at, curve.adds) < lowest - 1


def test_a_curve_adds_nothing_on_average_and_a_missing_value_adds_as_much():
    rows = sampled(100)
    curve = fitted(examples_of(rows, TASKS), NEEDED, 1.0)["local"].curves["present"]
    values = [s["present"] for row in rows if row.row.task == "local" for s in row.row.scores]
    assert np.mean(np.interp(values, curve.at, curve.adds)) == pytest.approx(0, abs=1e-3)
    assert curve.missing == 0
    needed = fitted(examples_of(rows, TASKS), {"local": ["present"], "color": []}, 1.0)
    assert needed["local"].curves["present"].missing is None


def test_a_row_that_stands_for_many_counts_as_many():
    wrong = [replace(row, weight=20.0 if row.right == (False, False) else 1.0) for row in sampled(200)]
    plain, heavy = (fitted(examples_of(rows, TASKS), NEEDED, 0.3)["local"] for rows in (sampled(200), wrong))
    assert heavy.intercept < plain.intercept - 1


def test_a_metric_that_is_seldom_measured_or_always_equal_is_not_used():
    rows = [
        judged(k, [{"clip_direction": k / 50, "present": 0.5, "dino": k if k < 5 else None}], [k > 25])
        for k in range(50)
    ]
    assert examples_of(rows, TASKS)["local"].metrics == ("clip_direction",)


def test_no_caption_is_on_both_sides_and_every_row_is_held_out_once():
    rows = sampled(90)
    held_out = []
    for training, rest in folds(rows):
        assert {row.row.caption for row in training}.isdisjoint(row.row.caption for row in rest)
        assert len(training) + len(rest) == len(rows)
        held_out += [row.row.id for row in rest]
    assert sorted(held_out) == sorted(row.row.id for row in rows)


def test_many_verdicts_on_tasks_of_few_rows_each_are_not_enough():
    rows = [
        row
        for seed, task in enumerate(("local", "color"))
        for row in sampled(LEAST_ROWS - 1, seed=seed, tasks=(task,))
    ]
    few = [
        replace(row, row=replace(row.row, caption=f"caption {number}"), right=(True, False))
        for number, row in enumerate(rows)
    ]
    with pytest.raises(UserError, match="rows of one task"):
        check_enough(few)
    assert calibrate(few, TASKS, STRICT, 0.95).model.tasks == {}  # as in a fold


@pytest.mark.parametrize("verdict", [True, False])
def test_verdicts_of_one_kind_are_not_enough(verdict):
    rows = [replace(row, right=(verdict, verdict)) for row in sampled(100)]
    with pytest.raises(UserError, match="judged wrong" if verdict else "judged right"):
        check_enough(rows)
    check_enough(sampled(100))


def examples(
    values: list[list[float]], right: list[bool], metrics=("clip_direction", "clip_image", "change_outside")
):
    table = np.array(values, float)
    return Examples(metrics[: table.shape[1]], table, np.array(right), np.ones(len(right)), len(right))


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.booleans()), min_size=1, max_size=150))
def test_bounds_peel_off_few_right_examples(rows):
    found = examples([[a, b] for a, b, _ in rows], [right for _, _, right in rows])
    bounds = peel(found)
    inside = np.ones(len(rows), bool)
    for metric, bound in bounds.items():
        values = found.values[:, found.metrics.index(metric)]
        inside &= (values >= (-1 if bound.min is None else bound.min)) & (
            values <= (1 if bound.max is None else bound.max)
        )
    right = found.right
    assert (right & ~inside).sum() <= PEELED * right.sum()


def test_bounds_lie_where_a_metric_speaks_against_a_pair_and_guards_keep_theirs():
    bounds = peel(examples([[0.2, 0.5, 0.1], [0.4, 0.7, 0.2], [-0.9, 0.1, 0.9]], [True, True, False]))
    assert bounds["clip_direction"].min == 0.2
    assert bounds["clip_direction"].max is None
    assert (bounds["clip_image"].min, bounds["clip_image"].max) == (0.5, 0.7)
    assert "change_outside" not in bounds


def test_of_many_right_examples_the_outermost_are_peeled_off():
    values = np.linspace(0, 0.99, 100)
    assert peel(examples([[v] for v in values], [True] * 100))["clip_direction"].min == pytest.approx(0.02)


def test_a_bound_lets_the_outermost_example_through_after_rounding():
    value = 0.1234567890123
    assert peel(examples([[value], [0.5]], [True, True]))["clip_direction"].min <= value


def test_every_metric_that_a_curve_reads_is_listed_by_its_task():
    for model in calibrate(sampled(100), TASKS, FilterConfig(), 0.9).model.tasks.values():
        assert set(model.curves) <= set(LISTED)
