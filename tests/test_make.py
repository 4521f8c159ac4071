"""What the README's ``make`` commands do, by the real make: the programs of ``.venv`` that they call."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import editor.cli  # noqa: F401 - adds its commands
from pipeline.cli import app
from tests.toybox_runs import ROOT

RECORD = """#!{python}
import json, os, sys
name = os.path.basename(sys.argv[0])
with open("called.jsonl", "a") as record:
    record.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
sys.exit(os.environ["FAILS"] in (name, *sys.argv))
"""
TARGETS = ("generate", "test", "edit")


def make(folder: Path, *words: str, fails: str = "") -> tuple[int, list[list[str]]]:
    """Make a target in a folder. Returns make's exit code and the programs that it called."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("python", "editpairs", "ruff", "mypy"):
        (programs / name).write_text(RECORD.format(python=sys.executable))
        (programs / name).chmod(0o755)
    called = folder / "called.jsonl"
    called.unlink(missing_ok=True)
    # The set-up needs a network; ``--old-file`` says that it is done.
    command = ["make", "-f", str(ROOT / "Makefile"), "--old-file", ".venv/ready", f"BIN={programs}", *words]
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(command, cwd=folder, env={**environment, "FAILS": fails}, capture_output=True)
    return done.returncode, [json.loads(line) for line in called.read_text().splitlines()]


def test_make_generate_generates_the_toybox(tmp_path):
    told = (0, [["editpairs", "generate", "manifests/toybox.yaml", "--wave", "1"]])
    assert make(tmp_path, "generate", "ARGS=--wave 1") == told


def test_make_edit_draws_a_picture_and_edits_it_three_times(tmp_path, monkeypatch):
    code, ((_, _, module, *drawing), (_, *editing)) = make(tmp_path, "edit")
    assert code == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["draw", *drawing])
    runpy.run_module(module, run_name="__main__")
    result = CliRunner().invoke(app, editing)
    assert result.exit_code == 0, (result.output, result.exception)
    assert (tmp_path / "runs" / "edit" / "turns" / "sheet.png").exists()


@pytest.mark.parametrize("fails", ["", "ruff", "mypy", "pytest"])
def test_make_test_checks_style_types_and_tests_and_fails_with_any(tmp_path, fails):
    code, called = make(tmp_path, "test", "ARGS=-k some", fails=fails)
    assert (code != 0) is bool(fails)
    assert called[0] == ["ruff", "check", "."]
    if fails != "ruff":
        assert called[1] == ["ruff", "format", "--check", "."]
        assert ["mypy"] in called
        [tests] = [words for words in called if words[0] == "python"]
        assert tests[:3] == ["python", "-m", "pytest"]
        assert tests[-2:] == ["-k", "some"]
