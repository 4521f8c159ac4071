"""A judge added to a finished run makes only what depends on it; taken out, all is as it was."""

import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from pipeline.store import events
from stages.shards.columns import columns_of
from tests.stages.chat_server import ChatServer, completion, said, then
from tests.toybox_runs import ROOT, STAGES, Run
from toybox.evaluation.judge import FILE
from toybox.evaluation.judge_server import JudgeServer

pytestmark = pytest.mark.skipif(not FILE.exists(), reason="trained by `make toybox`")
BEFORE = STAGES[:6]
MARKS = said(
    {
        **completion('{"reason": "fine", "instruction_following": 5, "consistency": 5, "quality": 5}'),
        "usage": {"prompt_tokens": 900, "completion_tokens": 30},
    }
)


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
    assert all(f"`{name}`" in card for name in columns_of(["judge"]))
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


def test_marks_are_exported(run, server, tmp_path):
    run.generate_here(*asked_of(server.url))
    for to in ("datasets", "webdataset", "preference", "magicbrush"):
        out = tmp_path / to
        told = CliRunner().invoke(app, ["export", str(run.folder), "--to", to, "--out", str(out)])
        assert told.exit_code == 0, told.output
        card = (out / "README.md").read_text(encoding="utf-8")
        assert ("judge_reason" in card) == (to in ("datasets", "webdataset"))
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


@pytest.fixture
def bad_server() -> Iterator[ChatServer]:
    made = ChatServer(default=MARKS)
    yield made
    made.shutdown()
    made.server_close()


def test_a_failed_row_is_counted_and_judged_again_alone(run, bad_server):
    [instruction, *others] = instructions(run)
    bad_server.behaviours[instruction] = then(said({"error": {"message": "busy"}}, 503), MARKS, often=1)
    run.generate_here(*asked_of(bad_server.url))
    assert Counter(judged(run.folder, "status")) == {"failed": 1, "kept": len(others)}
    [reason] = set(judged(run.folder, "reason")) - {""}
    assert reason.startswith("EndpointError: HTTP 503: busy")
    asked = bad_server.asked.total()
    retry = ("--stage", "judge", "--retry-failed", "--engine", "local")
    told = called(run, "rerun", *asked_of(bad_server.url), options=retry)
    assert told.exit_code == 0, told.output
    assert set(judged(run.folder, "reason")) == {""}
    again = bad_server.asked.total() - asked
    assert 1 <= again <= 2, "the candidates of one row"
    spent = events.spent(run.folder / "events.jsonl")["judge"]
    assert spent.prompt_tokens == 900 * (bad_server.asked.total() - 1), "every answer is counted once"
    told = CliRunner().invoke(app, ["cost", str(run.folder)])
    assert "judge: " in told.output
    assert "tokens a kept pair" in told.output


def test_a_judge_that_dies_stops_the_stage_and_the_same_command_goes_on(run, bad_server):
    bad_server.default = said({"error": {"message": "out of order"}}, 400)
    told = called(run, "generate", *asked_of(bad_server.url), options=("--engine", "local"))
    assert told.exit_code == 1
    assert (
        "judge stopped: most rows of part 0 fail alike: EndpointError: HTTP 400: out of order" in told.output
    )
    assert not list((run.folder / "judge").glob("0*.parquet"))
    bad_server.default = MARKS
    run.generate_here(*asked_of(bad_server.url))
    assert set(judged(run.folder, "status")) == {"kept"}


def test_a_bound_on_marks_without_a_judge_is_refused(run):
    told = called(run, "check", "filter.tasks.color.judge_quality=4")
    assert told.exit_code == 2
    assert "filter.tasks.color.judge_quality: nothing measures it: set judge.model" in " ".join(
        told.output.split()
    )


def called(run: Run, command: str, *settings: str, options: tuple[str, ...] = ()):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("COLUMNS", "400")
        return CliRunner().invoke(app, run.command(command, *options, settings=settings)[3:])


def instructions(run: Run) -> list[str]:
    """Of the rows that the judge is given."""
    scored = {i for path in (run.folder / "score").glob("*.parquet") for i in read(path, "id")}
    rows = [
        row
        for path in sorted((run.folder / "instruct").glob("*.parquet"))
        for row in pq.read_table(path, columns=["id", "instruction"]).to_pylist()
    ]
    return [row["instruction"] for row in rows if row["id"] in scored]


def judged(folder: Path, column: str) -> list:
    return [value for path in sorted((folder / "judge").glob("*.parquet")) for value in read(path, column)]


def read(path: Path, column: str) -> list:
    return pq.read_table(path, columns=[column])[column].to_pylist()
