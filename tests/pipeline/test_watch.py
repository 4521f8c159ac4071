"""The live table and the reckoning, on runs of the fake stages."""

import io
import json
import threading

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.ledger import count_run
from pipeline.shown import Terminal
from pipeline.store.sealed_lines import sealed_line
from pipeline.views.cost import measure
from pipeline.views.watch import Pace, Paces, progress_table, watch


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
        for line in text_of(
            progress_table(state.folder, count_run(state), Paces(state.folder).now())
        ).splitlines()
        if line.strip()
    }
    assert shown["write"][1] == "2/5"
    assert any(":" in cell for cell in shown["write"]), "time left"
    state = run.generate()
    done = text_of(progress_table(state.folder, count_run(state), Paces(state.folder).now()))
    assert "empty_caption" in done
    assert "?" not in done


def test_the_pace_is_that_of_the_last_files(run):
    run.generate()
    line = sealed_line({"stage": "write", "unit": 0, "rows": 50, "seconds": 1, "wall": 2})
    paces = Paces(run.generate().folder)
    assert paces.now()["write"].rows_a_second != pytest.approx(25)
    with (run.run / "events.jsonl").open("ab") as file:
        file.write(line * 20 + line[:30])
    assert paces.now()["write"].rows_a_second == pytest.approx(25)
    faster = sealed_line({"stage": "write", "unit": 0, "rows": 100, "seconds": 1, "wall": 2})
    with (run.run / "events.jsonl").open("ab") as file:
        file.write(line[30:] + faster * 15)
    expected = (15 * 100 + 50) / (16 * 2)
    assert paces.now()["write"].rows_a_second == pytest.approx(expected)
    assert Paces(run.generate().folder).now()["write"].rows_a_second == pytest.approx(expected)


def test_watching_a_finished_run_ends_at_once(run):
    run.generate()
    told = CliRunner().invoke(app, ["status", str(run.run), "--watch"])
    assert told.exit_code == 0, told.output
    assert "5/5" in told.output


class Heard(io.StringIO):
    """Tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str) -> int:
        done = super().write(text)
        self.written.set()
        return done


def test_watching_waits_for_a_run_to_begin(run):
    heard = Heard()
    console = Terminal(file=heard, width=140)
    watcher = threading.Thread(target=watch, args=(run.run, console, 0.01), daemon=True)
    watcher.start()
    assert heard.written.wait(60)
    assert f"waiting for a run to begin at {run.run}" in heard.getvalue()
    run.generate()
    watcher.join(60)
    assert not watcher.is_alive()
    assert "5/5" in heard.getvalue()


def test_watching_does_not_wait_for_a_run_that_cannot_be_read(run):
    run.generate()
    (run.run / "plan.parquet").unlink()
    told = CliRunner().invoke(app, ["status", str(run.run), "--watch"])
    assert told.exit_code == 2
    assert "plan.parquet is missing" in told.stderr


def test_cost_is_the_sum_of_the_events_and_scales(run):
    state = run.generate("draw.resources.workers=1")
    events = [json.loads(line) for line in (run.run / "events.jsonl").read_text().splitlines()]
    expected = sum(event["seconds"] for event in events if "seconds" in event)
    cost = measure(state)
    assert cost.total.worker_seconds == pytest.approx(expected)
    assert cost.total.gpu_seconds == 0
    assert cost.pairs > 0
    told = CliRunner().invoke(app, ["cost", str(run.run), "--pairs", "1000"])
    assert told.exit_code == 0, told.output
    assert "1,000 pairs" in told.output
    assert "GPU-seconds a kept pair" in told.output


def test_gpu_seconds_are_worker_seconds_times_gpus(run):
    state = run.generate("draw.resources.gpus=0.5")
    cost = measure(state)
    draw = cost.stages["draw"]
    assert draw.gpu_seconds > 0
    assert cost.total.gpu_seconds == pytest.approx(draw.worker_seconds / 2, abs=0.01)


def test_cpu_seconds_are_what_the_worker_computed_not_what_it_waited(run):
    state = run.generate("draw.pause=0.05")
    draw = measure(state).stages["draw"]
    assert draw.worker_seconds > 20 * 0.05
    assert 0 < draw.cpu_seconds < draw.worker_seconds - 0.9


def test_cost_before_any_pair_says_what_to_do(make_run):
    run = make_run(captions=["a broken cube"])
    run.generate()
    told = CliRunner().invoke(app, ["cost", str(run.run)])
    assert told.exit_code != 0
    assert "no pairs yet" in told.output
