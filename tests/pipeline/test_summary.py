"""``run.status()`` and ``editpairs status --json``: the same numbers, in a layout that does not change."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from pipeline.views.summary import RunStatus
from tests.pipeline.runs import FakeRun


@pytest.fixture
def run(make_run) -> FakeRun:
    """One wave of two: rows that are kept, rejected, failed and pending."""
    made = make_run(captions=[*(f"cube {i}" for i in range(16)), "", "a broken cube", "cube", "box"])
    made.generate("sieve.default.brightness=0.4")
    made.generate("sieve.default.brightness=0.3", wave=3)
    return made


def told(run: FakeRun) -> dict:
    done = CliRunner().invoke(app, ["status", str(run.run), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_layout_of_version_1(run):
    status = told(run)
    assert list(status) == [
        "version", "folder", "captions", "duplicates", "planned", "parts", "pairs", "finished", "stages",
        "damaged", "pruned",
    ]  # fmt: skip
    assert status["version"] == 1
    for stage in status["stages"]:
        assert list(stage) == [
            "name", "parts", "parts_done", "rows", "tasks", "lost", "wall_seconds", "cpu_seconds",
            "gpu_seconds",
        ]  # fmt: skip
        for rows in (stage["rows"], *stage["tasks"].values()):
            assert list(rows) == ["given", "kept", "rejected", "failed", "pending"]
        for lost in stage["lost"]:
            assert list(lost) == ["status", "reason", "rows"]


def test_the_numbers_add_up(run):
    status = told(run)
    assert status["planned"] == 20
    assert not status["finished"]
    assert {stage["name"] for stage in status["stages"] if stage["rows"]["pending"]} == {"sieve"}
    for stage in status["stages"]:
        for rows in (stage["rows"], *stage["tasks"].values()):
            assert rows["given"] == sum(rows.values()) - rows["given"]
        for kind in ("given", "kept", "rejected", "failed"):
            assert stage["rows"][kind] == sum(rows[kind] for rows in stage["tasks"].values())
        lost = stage["rows"]["rejected"] + stage["rows"]["failed"]
        assert sum(each["rows"] for each in stage["lost"]) == lost
    write = status["stages"][0]
    assert {(each["status"], each["rows"]) for each in write["lost"]} == {("rejected", 1), ("failed", 1)}


def test_python_and_the_command_tell_the_same(run):
    status = open_run(run.run).status()
    assert json.loads(status.to_json()) == told(run)


def test_an_opened_run_tells_of_what_happens_later(run):
    opened = open_run(run.run)
    assert not opened.status().finished
    run.generate("sieve.default.brightness=0.3")
    assert opened.status().finished


@given(st.text())
def test_no_text_of_a_run_reaches_a_terminal_as_an_escape(reason):
    status = RunStatus(1, reason, 0, 0, 0, 0, 0, True, (), (reason,))
    written = status.to_json()
    assert written.isascii()
    assert all(character.isprintable() for character in written.replace("\n", ""))
    assert json.loads(written)["folder"] == reason


def test_a_table_that_goes_on_and_json_that_ends_are_not_asked_for_together(run):
    done = CliRunner().invoke(app, ["status", str(run.run), "--json", "--watch"])
    assert done.exit_code == 2
    assert "--watch" in done.stderr
