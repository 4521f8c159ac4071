"""The draw of a review: each row once, all tasks alike, more near the bounds; estimates without bias."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.verdicts.agreement import agreements
from pipeline.verdicts.estimate import Known, by_task, current, estimate, known_rows, rows_for, share, wilson
from pipeline.verdicts.population import Reviewable
from pipeline.verdicts.strata import Draw, draw, margins
from pipeline.verdicts.verdict import Verdict
from stages.filter.model import TaskModel
from stages.tasks import Bounds
from tests.pipeline.reviewables import reviewable, row_id, verdicts_about

BOUNDS = {"color": {"clip_direction": Bounds(min=0.5)}, "add": {"clip_direction": Bounds(min=0.2)}}
rows = st.lists(
    st.tuples(st.sampled_from(["color", "add"]), st.booleans(), st.floats(-1, 1)), min_size=1, max_size=60
).map(
    lambda told: [
        reviewable(n, task=task, kept=kept, directions=(direction,))
        for n, (task, kept, direction) in enumerate(told)
    ]
)


@given(rows, st.integers(0, 3))
def test_every_row_is_drawn_once_with_its_stratum(population, seed):
    drawn = draw(population, BOUNDS, seed)
    assert {d.row for d in drawn.rows} == set(population)
    assert len(drawn.rows) == len(population)
    sizes = Counter(d.stratum for d in drawn.rows)
    for d in drawn.rows:
        task, decision, _ = d.stratum.split()
        assert (task, decision == "kept") == (d.row.task, d.row.kept)
        assert d.stratum_rows == sizes[d.stratum]


@given(rows)
def test_the_order_is_the_same_again_and_another_by_seed_alone_within_strata(population):
    assert draw(population, BOUNDS) == draw(population[::-1], BOUNDS)
    one, other = draw(population, BOUNDS, 1), draw(population, BOUNDS, 2)
    assert [d.stratum for d in one.rows] == [d.stratum for d in other.rows]


def test_rows_near_a_bound_come_more_often_and_every_task_alike():
    """A task with three times as many rows gets as many of the first verdicts."""
    rng = np.random.default_rng(0)
    population = [
        reviewable(n, task="add" if n % 4 == 0 else "color", kept=bool(n % 3), directions=(rng.normal(),))
        for n in range(400)
    ]
    first = draw(population, BOUNDS).rows[:80]
    tasks = Counter(d.row.task for d in first)
    assert abs(tasks["add"] - tasks["color"]) <= 4
    places = Counter(d.stratum.split()[2] for d in first)
    assert places["near"] == pytest.approx(80 * 0.5 / (0.5 + 0.3), abs=4), "in proportion to their spreads"


def test_a_margin_is_that_of_the_best_candidate_in_spreads_of_the_metric():
    population = [reviewable(0, directions=(0.4, 0.9)), reviewable(1, directions=(0.1,))]
    spread = np.std([0.4, 0.9, 0.1])
    assert margins(population, BOUNDS) == pytest.approx([0.4 / spread, -0.4 / spread])
    assert margins(population, {}) == [0, 0]


def test_a_calibrated_filter_s_threshold_is_a_bound_too():
    model = TaskModel(threshold=0.5, curves={"clip_direction": {"at": [0, 1], "adds": [-1, 1]}})
    population = [reviewable(n, directions=(value,)) for n, value in enumerate((0.2, 0.9, 0.6))]
    found = margins(population, {}, {"color": model})
    assert found == pytest.approx([-0.6, 0, 0])
    far = {"color": {"clip_direction": Bounds(min=-9)}}
    assert margins(population, far, {"color": model}) == pytest.approx([-0.6, 0.8, 0.2])
    assert margins(population, far, {"add": model}) == margins(population, far)


def truth_of(population: list[Reviewable], seed: int) -> dict[str, bool]:
    """Colours are right in 95 % of the kept and in 60 % of the rejected rows, additions in 60 % and 10 %."""
    rng, shares = np.random.default_rng(seed), {"color": (0.6, 0.95), "add": (0.1, 0.6)}
    return {row.id: bool(rng.random() < shares[row.task][row.kept]) for row in population}


def judged(drawn: Draw, truth: dict[str, bool], count: int) -> list[Verdict]:
    return [v for d in drawn.rows[:count] for v in verdicts_about(d, truth[d.row.id], design=drawn.design)]


def a_run(seed: int, rows: int = 300) -> list[Reviewable]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.5, 0.3, rows)
    return [
        reviewable(n, task="color" if n % 3 else "add", kept=bool(s > 0.45), directions=(s,))
        for n, s in enumerate(scores)
    ]


def totals(known: list[Known]) -> tuple[float, float]:
    """Weighted numbers of kept right rows and of rows that could be kept."""
    return sum(k.weight for k in known if k.got), sum(k.weight for k in known if k.possible)


def test_estimates_of_a_part_of_the_rows_are_without_bias():
    """The mean of many draws is the truth; a mean without weights is not."""
    population = a_run(0)
    truth = truth_of(population, 1)
    exact = (sum(truth[r.id] for r in population if r.kept), sum(truth.values()))
    found, unweighted = [], []
    for seed in range(150):
        drawn = draw(population, BOUNDS, seed)
        known = known_rows(population, judged(drawn, truth, 60))
        found.append(totals(known))
        unweighted.append(sum(bool(k.possible) for k in known) / 60 * len(population))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - exact) < 3 * error)
    assert abs(np.mean(unweighted) - exact[1]) > 3 * error[1], "strata are drawn with other shares"


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    population = a_run(2)
    truth = truth_of(population, 3)
    kept = [truth[row.id] for row in population if row.kept]
    hits = 0
    for seed in range(100):
        known = known_rows(population, judged(draw(population, BOUNDS, seed), truth, 60))
        precision = estimate(known).precision
        hits += precision.low <= np.mean(kept) <= precision.high
    assert hits >= 90


def test_when_all_rows_are_judged_the_estimate_is_the_count():
    population = a_run(4, 60)
    truth = truth_of(population, 5)
    found = estimate(known_rows(population, judged(draw(population, BOUNDS), truth, 60)))
    kept = [truth[row.id] for row in population if row.kept]
    assert found.precision.value == pytest.approx(np.mean(kept))
    assert found.recall.value == pytest.approx(sum(kept) / sum(truth.values()))


def test_after_the_filter_has_changed_earlier_verdicts_still_count_with_their_weights():
    """Drawn under one filter, read under another: the estimates stay near the truth."""
    before = a_run(6)
    truth = truth_of(before, 7)
    after = [
        reviewable(n, task=row.task, kept=bool(row.scores[0]["clip_direction"] > 0.2),
                   directions=(row.scores[0]["clip_direction"],))
        for n, row in enumerate(before)
    ]  # fmt: skip
    exact = (sum(truth[r.id] for r in after if r.kept), sum(truth.values()))
    found = []
    for seed in range(100):
        verdicts = judged(draw(before, BOUNDS, seed), truth, 60)
        verdicts += judged(draw(after, BOUNDS, seed), truth, 40)
        found.append(totals(known_rows(after, verdicts)))
    assert np.mean(found, axis=0) == pytest.approx(exact, rel=0.05)


def test_verdicts_of_a_file_weigh_by_task_and_decision():
    population = [reviewable(n, kept=n < 90) for n in range(100)]
    verdicts = [
        Verdict(id=row_id(n), candidate=0, verdict="right" if n % 2 else "wrong", who="judge")
        for n in [*range(30), *range(95, 100)]
    ]
    known = known_rows(population, verdicts)
    assert {k.weight for k in known if k.row.kept} == {3.0}
    assert {k.weight for k in known if not k.row.kept} == {2.0}
    found = estimate(known)
    assert found.precision.value == pytest.approx(0.5)
    assert found.recall.value == pytest.approx(45 / (45 + 6))


def test_verdicts_about_pictures_that_were_drawn_anew_do_not_count():
    population = [reviewable(1)]
    about = {"id": row_id(1), "candidate": 0, "verdict": "right", "who": "anna"}
    there = Verdict(**about, anchor_hash=1, candidate_hash=10)
    stale = [Verdict(**about, anchor_hash=1, candidate_hash=11), Verdict(**{**about, "candidate": 5})]
    assert current(population, [there, *stale]) == [there]


def test_unsure_rows_and_ties_count_for_nothing():
    population = [reviewable(n) for n in range(3)]
    told = [("anna", 0, "right"), ("anna", 1, "unsure"), ("anna", 2, "right"), ("bob", 2, "wrong")]
    verdicts = [Verdict(id=row_id(n), candidate=0, verdict=v, who=who) for who, n, v in told]
    found = by_task(known_rows(population, verdicts))["color"]
    assert (found.judged, found.precision.rows, found.precision.value) == (3, 1, 1.0)


def test_a_kept_row_whose_other_candidate_is_right_could_have_been_kept():
    row = reviewable(1, directions=(0.6, 0.7))
    verdicts = [Verdict(id=row.id, candidate=k, verdict=v, who="a") for k, v in enumerate(["wrong", "right"])]
    found = estimate(known_rows([row], verdicts))
    assert (found.precision.value, found.recall.value) == (0.0, 0.0)


def test_nothing_known_is_said_to_be_unknown():
    assert str(share([])) == "not known"
    assert estimate([]).precision.value is None


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_an_interval_holds_its_share(p, n):
    low, high = wilson(p, n)
    assert 0 <= low <= p + 1e-9
    assert p - 1e-9 <= high <= 1


@given(st.floats(0.05, 0.95), st.floats(0.02, 0.2))
def test_the_number_of_rows_for_a_width_gives_this_width(p, half):
    low, high = wilson(p, rows_for(p, half))
    assert (high - low) / 2 <= half
    low, high = wilson(p, max(1, rows_for(p, half) - 1))
    assert (high - low) / 2 > half or rows_for(p, half) == 1, "no more than needed"


def test_agreement_is_that_of_cohen():
    told = {"anna": "rrrrwwwwu", "bob": "rrrwwwwrr", "cem": "........r"}
    names = {"r": "right", "w": "wrong", "u": "unsure"}
    verdicts = [
        Verdict(id=row_id(n), candidate=0, verdict=names[letter], who=who)
        for who, letters in told.items()
        for n, letter in enumerate(letters)
        if letter != "."
    ]
    first, second = agreements(verdicts)
    assert (first.people, first.both, first.equal) == (("anna", "bob"), 8, 6)
    assert first.kappa == pytest.approx(0.5)
    assert (second.people, second.both, second.kappa) == (("bob", "cem"), 1, None)
    assert str(first) == "anna and bob: 6 of 8 equal, kappa 0.50"
