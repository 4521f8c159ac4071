"""The operating point: thresholds for a wanted precision, and what is told about precision and recall."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from pipeline.calibration.calibrate import Calibrated
from pipeline.calibration.figures import measured
from pipeline.calibration.operating import SLACK, least_probability, recalibrate
from pipeline.calibration.summary import reached, summary
from pipeline.shown import terminal
from pipeline.verdicts.estimate import Estimate, Share, estimate
from stages.filter.model import FilterModel
from tests.pipeline.judged_rows import judged, sampled

probabilities = st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=40)


@given(probabilities, st.floats(0.5, 0.999))
def test_the_threshold_is_the_lowest_that_keeps_the_wanted_share(rows, precision):
    values, weights = (np.array(column) for column in zip(*rows, strict=True))
    threshold = least_probability(values, weights, precision)

    def kept_share(lowest: float) -> float:
        kept = values >= lowest
        return values[kept] @ weights[kept] / weights[kept].sum()

    if threshold is None:
        assert values.max() < precision + 1e-9
        return
    least = precision - SLACK
    assert threshold >= least
    if (values >= threshold).any():
        assert kept_share(threshold) >= precision - 1e-9
    for lower in values[(values < threshold) & (values >= least)]:
        assert kept_share(lower) < precision + 1e-9


def test_a_fit_that_is_too_sure_of_itself_is_recalibrated():
    rng = np.random.default_rng(0)
    odds = rng.normal(1, 2, 3000)
    right = rng.random(3000) < expit(odds)
    offset, factor = recalibrate(3 * odds + 1, right, np.ones(3000))
    assert factor == pytest.approx(1 / 3, abs=0.05)
    assert offset == pytest.approx(-1 / 3, abs=0.1)


def test_few_verdicts_hardly_recalibrate():
    offset, factor = recalibrate(np.array([1.0, -1.0]), np.array([False, True]), np.ones(2))
    assert abs(offset) < 0.2
    assert 0.4 < factor < 1


def test_the_intervals_hold_the_value_and_are_wider_if_captions_decide():
    rows = [replace(row, row=replace(row.row, choice=0)) for row in sampled(200)]
    apart = measured(rows).precision
    assert apart.low < apart.value < apart.high
    # All rows of a caption are alike: there are only 20 independent ones.
    alike = [judged(k, [{}], [k // 10 % 5 != 0], caption=f"caption {k // 10}", choice=0) for k in range(200)]
    wide, plain = measured(alike).precision, estimate(alike).precision
    assert wide.value == plain.value == 0.8
    assert wide.high - wide.low > 1.5 * (plain.high - plain.low)


def test_an_interval_without_a_wrong_row_is_not_of_no_width():
    precision = measured([judged(k, [{}], [True], choice=0) for k in range(20)]).precision
    assert (precision.value, precision.high) == (1.0, 1.0)
    assert precision.low < 0.9


def test_rows_kept_with_a_candidate_that_nobody_judged_do_not_count():
    rows = [judged(0, [{}, {}], [None, True], choice=0), judged(1, [{}], [True], choice=0)]
    assert measured(rows).precision.rows == 1


def of(value: float | None, low: float, high: float, rows: int = 50) -> Estimate:
    return Estimate(rows, Share(value, low, high, rows), Share(None, 0, 1, 0))


def test_it_is_told_whether_the_wanted_precision_is_reached_or_how_many_verdicts_tell():
    assert reached(of(0.98, 0.96, 0.99), 0.95) == "yes"
    assert reached(of(0.90, 0.88, 0.93), 0.95) == "no"
    assert reached(of(0.95, 0.91, 0.98), 0.95) == "about"
    assert reached(of(None, 0, 1, rows=0), 0.95).startswith("judge ")
    few, more = (int(reached(of(0.92, 0.75, 0.99, rows), 0.95).split()[1]) for rows in (30, 60))
    assert few - more == 30


def test_the_summary_shows_every_task_before_and_after(capsys):
    rows = sampled(40)
    after = [replace(row, row=replace(row.row, choice=None)) for row in rows]
    left_out = Calibrated(FilterModel(version=1, tasks={}), {"color": "3 judged rows, 10 are needed"})
    terminal().print(summary(rows, after, left_out, 0.95))
    told = capsys.readouterr().out
    lines = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert "100%" in lines["local"]
    assert "0%" in lines["local"]
    assert "bounds kept" in told
    assert "color keeps its bounds: 3 judged rows, 10 are needed" in told
