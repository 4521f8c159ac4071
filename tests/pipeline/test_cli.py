import subprocess
import sys

import pytest

from pipeline import cli
from pipeline.cli.options import parse_parts
from pipeline.errors import UserError
from tests.pipeline.runs import FakeRun


def editpairs(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, output and errors of the command."""
    monkeypatch.setattr(sys, "argv", ["editpairs", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, errors = capsys.readouterr()
    return end.value.code or 0, out, errors


@pytest.fixture
def finished(run: FakeRun) -> FakeRun:
    run.generate()
    return run


def test_status_tells_where_every_row_is(finished, monkeypatch, capsys):
    code, out, _ = editpairs(monkeypatch, capsys, "status", finished.run)
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert lines["write"][:6] == ["5/5", "20", "20", "0", "0", "0"]
    assert lines["remove"][0] == "10"
    assert "pairs in 3 shards" in out


def test_status_of_a_stale_run_is_pending(finished, monkeypatch, capsys):
    finished.generate("sieve.default.brightness=0.3", wave=1)
    _, out, _ = editpairs(monkeypatch, capsys, "status", finished.run)
    sieve = next(line.split() for line in out.splitlines() if line.startswith("sieve"))
    assert sieve[1] == "1/5"
    assert int(sieve[6]) == 16


@pytest.mark.parametrize("command", [["status", "nowhere"], ["inspect", "nowhere"], ["generate", "no.yaml"]])
def test_wrong_input_is_one_message_and_exit_code_2(monkeypatch, capsys, command):
    code, _, errors = editpairs(monkeypatch, capsys, *command)
    assert code == 2
    assert errors.startswith("error: ")
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["generate", "rerun", "check", "status", "inspect"])
def test_help_shows_an_example(monkeypatch, capsys, command):
    code, out, _ = editpairs(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert f"editpairs {command}" in out


@pytest.mark.parametrize(("text", "parts"), [("3", range(3, 4)), ("0-4", range(5))])
def test_parts(text, parts):
    assert parse_parts(text) == parts


@pytest.mark.parametrize("text", ["", " ", "a", "4-2", "1-", "-1", "\N{SUPERSCRIPT TWO}", "9" * 5000])
def test_wrong_parts(text):
    with pytest.raises(UserError, match="--parts"):
        parse_parts(text)


@pytest.mark.parametrize(
    "command",
    [
        ["rerun", "toybox", "--stage", "edit", "--parts", ""],
        ["inspect", "nowhere", "--seed", "-1"],
        ["report", "nowhere", "--seed", "-1"],
        ["cost", "nowhere", "--pairs", "9" * 400],
        ["inspect", "run\0nowhere"],
        ["validate", "s3://"],
        ["status", "~nobody-here/run"],
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_done(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    code, _, errors = editpairs(monkeypatch, capsys, *command)
    assert code == 2
    assert "Traceback" not in errors
    assert "there is no run" not in errors
    assert not list(tmp_path.iterdir())


def test_help_and_completion_wait_for_no_library_of_tables_or_arrays():
    code = "import sys, pipeline.cli; print({'numpy', 'pyarrow', 'pydantic', 'stages'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_commands_start_without_the_heavy_libraries():
    """They take seconds to import, and only a worker needs them."""
    heavy = ("torch", "ray", "transformers", "diffusers", "datasets", "segment_anything")
    modules = "sys, pipeline.engine.generate, pipeline.views.status, stages"
    code = f"import {modules}; print(set({heavy}) & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
