"""The study of calibrated filters: its tables on rows whose truth is known, and a whole report of a run."""

import sys

import pyarrow.parquet as pq
import pytest

from pipeline.calibration.calibrate import calibrate
from stages.filter.model import read_model
from stages.filter.stage import FilterConfig
from tests.pipeline.judged_rows import TASKS, judged, sampled
from tests.pipeline.runs import ROOT
from tests.pipeline.scored_runs import is_right, scored_run
from toybox.studies import by_eye
from toybox.studies import filter_calibration as study
from toybox.studies.filter_tables import Judged, everything, overall_table, task_table
from toybox.studies.score_additions import additions_table, ranked_right


def cells(lines) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_without_a_score_that_tells_right_pairs_are_found_less_well():
    train, test = (sampled(100, seed, tells=1.0) for seed in (0, 1))
    table = cells(additions_table(train, test, TASKS, FilterConfig(), 0.8))
    ranked = {line[0]: float(line[1]) for line in table[2:]}
    assert ranked["without `clip_text_output`"] < ranked["with all scores"] - 0.02
    assert ranked["without `clip_direction`"] == pytest.approx(ranked["with all scores"], abs=0.03)
    assert ranked["without curves"] < 0.6
    assert ranked["without bounds"] == ranked["with all scores"]


def test_a_right_candidate_is_ranked_before_a_wrong_one_as_often_as_the_model_says():
    model = calibrate(sampled(200), TASKS, FilterConfig(), 0.95).model
    assert ranked_right(sampled(200, seed=1), model) > 0.95
    swapped = [
        judged(k, row.row.scores, [not right for right in row.right], task=row.row.task)
        for k, row in enumerate(sampled(200, seed=1))
    ]
    assert ranked_right(swapped, model) < 0.05
    assert ranked_right(swapped, model.model_copy(update={"tasks": {}})) is None


def test_every_pair_is_kept_with_its_highest_direction():
    rows = [judged(0, [{"clip_direction": 0.1}, {"clip_direction": 0.3}, {}], [False, True, True])]
    [kept] = everything(rows)
    assert kept.row.choice == 1
    [line] = cells(overall_table([Judged("run", "a run", rows, 4)], {"every pair": everything}))[2:]
    assert line[:3] == ["a run", "every pair", "1 of 4, 0.25"]
    assert line[3].startswith("1.00")


def test_a_report_of_a_run_is_written_from_the_halves_of_its_captions(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = scored_run(tmp_path / "runs", monkeypatch)
    plan = pq.read_table(run.folder / "plan.parquet").to_pylist()
    lines = [
        (r["id"], k, "right" if is_right(r["seed"], k) else "wrong", "judge") for r in plan for k in (0, 1)
    ]
    monkeypatch.setattr(study, "verdict_lines", lambda run, judge: lines)
    monkeypatch.setattr(study.Judge, "load", lambda: None)
    monkeypatch.setattr(study, "REPORT", tmp_path / "report.md")
    monkeypatch.setattr(study, "MODEL", tmp_path / "model.json")
    monkeypatch.setattr(study, "POINTS", (study.PRECISION,))
    monkeypatch.setattr(study, "additions_table", lambda *of_study: [])  # many fits, tested above
    halves = study.judged_halves(run.folder, None)
    captions = [{row.row.caption for row in half.rows} for half in halves]
    assert captions[0].isdisjoint(captions[1])
    assert sum(half.planned for half in halves) == sum(len(half.rows) for half in halves) == len(plan)
    monkeypatch.setattr(sys, "argv", ["study", str(run.folder), str(run.folder)])
    study.main()
    told = (tmp_path / "report.md").read_text()
    assert f"toybox, seed 0: {len(halves[0].rows)} rows" in told
    assert f" of {len(plan)}, " in told
    rows = {line[1]: line for line in cells(told.splitlines()) if line[0] == "toybox, seed 0, other captions"}
    recalls = {name: float(line[4].split()[0]) for name, line in rows.items()}
    assert recalls["calibrated"] > recalls["by hand"] + 0.05
    assert set(read_model(tmp_path / "model.json").tasks) == {"color", "local"}


def test_a_task_whose_kept_pairs_are_worse_than_the_drawn_ones_is_named():
    scores = [{"clip_direction": 0.1}, {"clip_direction": 0.3}]
    right = [judged(n, scores, [True, True], task="color") for n in range(3)]
    worse = [judged(n, scores, [True, False], task="local") for n in range(3, 6)]
    told = [*task_table([*right, *worse], {"every pair": everything})]
    assert told[-1].endswith("below the share right of drawn in: local, every pair (0.000 of 0.500).")
    assert [line[:3] for line in cells(told)[2:4]] == [["color", "3", "1.00"], ["local", "3", "0.50"]]
    assert [*task_table(right, {"every pair": everything})][-1].endswith("never below it.")


def test_a_verdict_by_eye_takes_the_place_of_the_judge_s():
    rows = [judged(n, [{}, {}], [True, True], task="global" if n else "color") for n in range(3)]
    [(judge_s, seen)] = by_eye.by_eye(rows, {rows[1].row.id: {1: (False, 4.0)}})
    assert judge_s is rows[1]
    assert (seen.row, seen.weight) == (rows[1].row, 4.0)
    assert seen.right == (None, False), "nobody saw the first candidate"
    assert by_eye.with_eyes(rows, [seen]) == [rows[0], seen], "a global row that nobody saw is left out"


def test_agreement_counts_only_candidates_that_the_eye_was_sure_of():
    rows = [judged(n, [{}, {}], [True, False], task="global" if n else "color") for n in range(2)]
    first, second = (row.row.id for row in rows)
    verdicts = {first: {0: (True, 1.0), 1: (None, 1.0)}, second: {0: (False, 1.0), 1: (True, 1.0)}}
    assert cells(by_eye.agreement_table(by_eye.by_eye(rows, verdicts)))[2:] == [
        ["global", "0", "1", "1", "0"],
        ["others", "1", "0", "0", "0"],
    ]


def test_the_verdicts_by_eye_stand_for_what_their_sheet_says():
    runs = ("editor-pairs", "toybox", "toybox-77")
    draws = [[by_eye.read_verdicts(draw, run) for run in runs] for draw in ("train", "kept")]
    assert [sum(map(len, of_run.values())) for draw in draws for of_run in draw] == [60, 0, 0, 79, 4, 7]
    train, kept = (draw[0] for draw in draws)
    assert train.keys().isdisjoint(kept)
    wrong = [right for row in train.values() for right, _ in row.values()].count(False)
    assert 0.6 < wrong / 60 < 0.7, "two thirds of the drawn global edits, the document says"
