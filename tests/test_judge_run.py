"""A judge added to a finished run makes only what depends on it; taken out, all is as it was."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from stages.shards.stage import JUDGED_COLUMNS
from tests.toybox_runs import ROOT, STAGES, Run
from toybox.evaluation.judge import FILE
from toybox.evaluation.judge_server import JudgeServer

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="trained by `make toybox`")
BEFORE, AFTER = STAGES[:6], ["filter", "select", "shards"]


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    made = JudgeServer()
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def run(toybox_run, tmp_path, monkeypatch) -> Run:
    """A finished run that this test may change."""
    monkeypatch.setenv("TEST_KEY", "any")
    made = Run(tmp_path)
    shutil.copytree(toybox_run.folder, made.folder, copy_function=shutil.copy2)
    return made


def asked_of(url: str, **keys: object) -> list[str]:
    endpoint = {"base_url": url, "api_key_variable": "TEST_KEY", "retries": 0}
    section = {"model": "toybox", **keys}
    return [f"judge.{key}={value}" for key, value in section.items()] + [
        f"judge.endpoint.{key}={value}" for key, value in endpoint.items()
    ]


def test_a_judge_added_to_a_run_and_taken_out_again(run, server):
    contents = {name: content for name, (content, _) in run.files(*STAGES, "shards").items()}
    made = run.files(*BEFORE)
    run.generate_here(*asked_of(server.url))
    assert run.files(*BEFORE) == made, "what the judge looks at was not made again"
    frame = pandas.read_parquet(run.folder / "shards")
    assert len(frame) >= 3
    assert set(judged(run.folder, "reason")) == {""}
    assert frame[["judge_instruction", "judge_consistency", "judge_quality"]].stack().between(1, 5).all()
    assert frame.judge_reason.str.len().min() > 0
    assert set(frame.instruction_origin) == {"instruct"}
    assert frame.T_asked.isna().all()
    opened = open_run(run.folder)
    assert opened.pairs()[0].scores["judge_quality"] == frame.judge_quality[0]
    scored = opened.scores()
    assert scored.judge_quality.notna().sum() == sum(len(s or []) for s in judged(run.folder, "judge_scores"))
    card = (run.folder / "README.md").read_text(encoding="utf-8")
    assert "| judge.model | `toybox@main` |" in card
    assert all(f"`{name}`" in card for name in JUDGED_COLUMNS)
    for command in (["validate"], ["report"], ["cost"], ["inspect"]):
        told = CliRunner().invoke(app, [command[0], str(run.folder)])
        assert told.exit_code == 0, (command, told.output)
    run.generate_here()
    assert {name: content for name, (content, _) in run.files(*STAGES, "shards").items()} == contents


def test_marks_are_thresholds_like_any_metric(run, server):
    run.generate_here(*asked_of(server.url), "filter.default.judge_consistency=4")
    reasons = [r for path in (run.folder / "filter").glob("*.parquet") for r in read(path, "reason")]
    assert "judge_consistency_low" in reasons
    assert (pandas.read_parquet(run.folder / "shards").judge_consistency >= 4).all()


@pytest.mark.parametrize("to", ["datasets", "webdataset", "preference", "magicbrush"])
def test_marks_are_exported(run, server, tmp_path, to):
    run.generate_here(*asked_of(server.url))
    out = tmp_path / "out"
    told = CliRunner().invoke(app, ["export", str(run.folder), "--to", to, "--out", str(out)])
    assert told.exit_code == 0, told.output
    card = (out / "README.md").read_text(encoding="utf-8")
    if to in ("datasets", "webdataset"):
        assert "judge_reason" in card
    if to == "preference":
        schema = pq.read_schema(next((out / "data").glob("*.parquet")))
        assert "judge_quality" in str(schema.field("chosen_scores").type)


def test_a_dead_judge_is_named_before_anything_is_made(run, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    before = run.files(*STAGES, "shards")
    monkeypatch.delenv("TEST_KEY")
    for command in ("check", "generate"):
        told = called(run, command, *asked_of(url))
        assert told.exit_code == 2
        assert (
            f"judge.endpoint.base_url: nothing answers at 127.0.0.1, port {url.split(':')[2][:-3]}"
            in told.output
        )
        assert "judge.endpoint.api_key_variable: the environment has no TEST_KEY" in told.output
    assert run.files(*STAGES, "shards") == before


def test_a_bound_on_marks_without_a_judge_is_refused(run):
    told = called(run, "check", "filter.tasks.color.judge_quality=4")
    assert told.exit_code == 2
    assert "filter.tasks.color.judge_quality: nothing measures it: set judge.model" in " ".join(
        told.output.split()
    )


def called(run: Run, command: str, *settings: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("COLUMNS", "400")
        return CliRunner().invoke(app, run.command(command, settings=settings)[3:])


def judged(folder: Path, column: str) -> list:
    return [value for path in sorted((folder / "judge").glob("*.parquet")) for value in read(path, column)]


def read(path: Path, column: str) -> list:
    return pq.read_table(path, columns=[column])[column].to_pylist()
