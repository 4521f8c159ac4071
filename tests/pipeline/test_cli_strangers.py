"""What a newcomer meets: help, the version, completion, and an answer to each mistake."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import app
from tests.pipeline.runs import ROOT, FakeRun

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def told(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def finished(run: FakeRun) -> FakeRun:
    run.generate()
    return run


def test_the_version_is_that_of_the_package():
    assert told("--version").stdout.strip() == f"editpairs {version('editpairs')}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_how_it_is_called(name):
    done = told(name, "--help")
    assert done.exit_code == 0
    assert f"editpairs {name} " in done.output
    for example in COMMANDS[name].epilog.split("\n\n")[1:]:
        words = example.split("&&")[0].split("|")[0].split()
        assert words[:2] == ["editpairs", name] or words[0] == "editpairs"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_example_is_one_that_the_command_has(name):
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    for example in COMMANDS[name].epilog.split("\n\n")[1:]:
        for call in example.split("&&"):
            words = call.split("|")[0].split()
            if words[:2] == ["editpairs", name]:
                assert {word for word in words if word.startswith("--")} <= known


def test_the_help_of_editpairs_shows_where_to_begin():
    assert "editpairs generate toybox" in told("--help").output


@pytest.mark.parametrize(
    ("shell", "variables"),
    [
        ("bash", {"COMP_WORDS": "editpairs sta", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "editpairs sta"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "editpairs sta", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shells_complete_commands(shell, variables):
    code = "import sys; sys.argv[0] = 'editpairs'; from pipeline.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_EDITPAIRS_COMPLETE": f"complete_{shell}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **variables}, capture_output=True, text=True
    )
    assert "status" in done.stdout
    assert "generate" not in done.stdout


def test_completion_is_offered():
    assert "--install-completion" in told("--help").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "{folder}/fakes"], "there is no run at {folder}/fakes: did you mean {folder}/fake?"),
        (["cost", "{folder}/nothing-like-it"], "there is no run at {folder}/nothing-like-it: name a run's"),
        (["report", "{folder}/fakee"], "did you mean {folder}/fake?"),
        (["inspect", "{folder}/fakee"], "there is no run or shard at {folder}/fakee: did you mean"),
        (["validate", "{folder}/fakee"], "did you mean {folder}/fake?"),
        (["export", "{folder}/fakee", "--to", "datasets", "--out", "{folder}/out"], "did you mean"),
        (["regenerate", "{folder}/fakee", "0"], "did you mean {folder}/fake?"),
        (["generate", "toyboks"], "there is no manifest toyboks"),
        (["generate", "toyboks"], "did you mean toybox?"),
        (["check", "sdx1.yaml"], "did you mean sdxl"),
        (["rerun", "toybox", "--stage", "filtr", "--set", "runs={folder}"], "--stage filtr"),
        (["sweep", "nowhere.yaml"], "there is no manifest nowhere.yaml"),
        (["generate", "toybox", "-q", "-v"], "--quiet and --verbose contradict each other"),
        (["generate", "toybox", "--engine", "rey"], "'rey' is not one of 'ray', 'local'"),
        (["generate", "toybox", "--wave", "0"], "Invalid value for '--wave'"),
        (["export", "{folder}/fake", "--to", "tar", "--out", "x"], "'tar' is not one of"),
        (["generate", "toybox", "--set", "filter.defalt.x=1"], "unknown key"),
        (["generate", "toybox", "--waves", "1"], "No such option: --waves"),
        (["sttus", "x"], "No such command 'sttus'"),
        (["generate"], "Missing argument 'MANIFEST'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(finished, monkeypatch, arguments, message):
    monkeypatch.setenv("COLUMNS", "400")
    folder = str(finished.run.parent)
    done = told(*(argument.format(folder=folder) for argument in arguments))
    assert done.exit_code == 2
    assert message.format(folder=folder) in done.stderr
    assert "Traceback" not in done.output
    assert done.stderr.count("error: ") + done.stderr.count(" Error ") == 1


def test_the_name_of_a_run_is_answered_with_its_folder(make_run, monkeypatch, tmp_path):
    run = make_run(runs=str(tmp_path / "runs"))
    run.generate()
    monkeypatch.chdir(tmp_path)
    done = told("status", "fake")
    assert done.exit_code == 2
    assert "there is no run at fake: did you mean runs/fake?" in done.stderr
