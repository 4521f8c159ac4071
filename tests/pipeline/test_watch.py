"""The live table and the reckoning, on runs of the fake stages."""

import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cost import measure
from pipeline.ledger import count_run
from pipeline.watch import Pace, recent_pace, table_of


def text_of(renderable: object) -> str:
    console = Console(width=140)
    with console.capture() as told:
        console.print(renderable)
    return told.get()


@pytest.mark.parametrize(
    ("rate", "rows", "left"), [(2.0, 7300, "1:00:50"), (0.5, 30, "0:01:00"), (0, 5, "?"), (3.0, 0, "")]
)
def test_time_left_by_the_present_pace(rate, rows, left):
    assert Pace(rate).left(rows) == left


def test_the_table_says_how_far_each_stage_is_and_why_rows_were_lost(make_run):
    run = make_run(captions=[*(f"cube {i}" for i in range(18)), "", " "])
    state = run.generate(wave=2)
    shown = {
        line.split()[0]: line.split()
        for line in text_of(table_of(state.folder, count_run(state))).splitlines()
        if line.strip()
    }
    assert shown["write"][1] == "2/5"
    assert any(":" in cell for cell in shown["write"]), "time left"
    state = run.generate()
    done = text_of(table_of(state.folder, count_run(state)))
    assert "empty_caption" in done
    assert "?" not in done


def test_the_pace_is_that_of_the_last_files(run):
    run.generate()
    with (run.run / "events.jsonl").open("a") as events:
        for _ in range(20):
            line = {"stage": "write", "unit": 0, "rows": 50, "seconds": 1, "wall": 2}
            events.write(json.dumps(line) + "\n")
    assert recent_pace(run.generate().folder)["write"].rows_a_second == pytest.approx(25)


def test_watching_a_finished_run_ends_at_once(run):
    run.generate()
    told = CliRunner().invoke(app, ["status", str(run.run), "--watch"])
    assert told.exit_code == 0, told.output
    assert "5/5" in told.output


def test_cost_is_the_sum_of_the_events_and_scales(run):
    state = run.generate("draw.resources.workers=1")
    events = [json.loads(line) for line in (run.run / "events.jsonl").read_text().splitlines()]
    expected = sum(event["seconds"] for event in events if "seconds" in event)
    cost = measure(state)
    assert cost.worker_seconds == pytest.approx(expected)
    assert cost.gpu_seconds == 0
    assert cost.pairs > 0
    told = CliRunner().invoke(app, ["cost", str(run.run), "--pairs", "1000"])
    assert told.exit_code == 0, told.output
    assert "1,000 pairs" in told.output
    assert "GPU-seconds a kept pair" in told.output


def test_gpu_seconds_are_worker_seconds_times_gpus(run):
    state = run.generate("draw.resources.gpus=0.5")
    cost = measure(state)
    (draw,) = [stage for stage in cost.stages if stage.stage == "draw"]
    assert cost.gpu_seconds == pytest.approx(draw.spent.worker_seconds / 2)


def test_cost_before_any_pair_says_what_to_do(make_run):
    run = make_run(captions=[" "])
    run.generate()
    told = CliRunner().invoke(app, ["cost", str(run.run)])
    assert told.exit_code != 0
    assert "no pairs yet" in str(told.exception)
