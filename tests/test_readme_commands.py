"""The commands and the Python of README.md run, on a small toybox run."""

import os
import re
import shutil
from pathlib import Path

import pandas
import pytest
from typer.testing import CliRunner

import editor.__main__  # noqa: F401 - adds its commands
from pipeline.cli import app
from tests.quickstart.page import BLOCK, commands_of, words_of
from tests.quickstart.processes import review
from tests.stages.chat_server import ChatServer
from tests.test_make import TARGETS
from tests.toybox_runs import ROOT, SMALL

README = ROOT / "README.md"
PAIRS = ["rows=3", "rows_per_part=3", "diffusion.steps=10", "source.batch=3", "edit.batch=3", "score.batch=3"]
TRAINING = ["training.steps=1", "training.batch=2", "watch.samples=1", "sampling.steps=1"]
SETTINGS = {
    ("generate", "toybox"): SMALL,
    ("generate", "manifests/toybox.yaml"): SMALL,
    ("rerun", "manifests/toybox.yaml"): SMALL,
    ("sweep", "manifests/toybox.yaml"): SMALL,
    ("generate", "manifests/editor-pairs.yaml"): [*PAIRS, "filter.tasks={}", "filter.default={}"],
    ("train", "manifests/editor-toybox.yaml"): TRAINING,
}
"""By command and manifest: what makes it small. Without bounds in the filter there are pairs to train on."""


def given() -> list[str]:
    """The commands of the README: lines of blocks, then those inside sentences."""
    lines = [line for line in commands_of(README, "") if line.startswith(("editpairs ", "make "))]
    prose = BLOCK.sub("", README.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:editpairs|make|python -m) [^`]+)`", prose)
    return [*lines, *(command for command in named if command not in lines)]


@pytest.fixture(scope="module")
def folder(toybox_run, tmp_path_factory) -> Path:
    """A working folder with ``runs/toybox`` and what the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(toybox_run.folder, folder / "runs" / "toybox")
    plan = pandas.read_parquet(folder / "runs" / "toybox" / "plan.parquet")
    plan[["caption"]].to_parquet(folder / "captions.parquet")
    pandas.DataFrame({"input_caption": plan.caption[:1]}).to_parquet(folder / "emu.parquet")
    scored = pandas.read_parquet(folder / "runs" / "toybox" / "score", columns=["id", "status"])
    ids = scored.id[scored.status == "kept"].tolist()
    verdicts = [f"{row},0,{'wrong' if place % 2 else 'right'}\n" for place, row in enumerate(ids)]
    (folder / "verdicts.csv").write_text("id,candidate,verdict\n" + "".join(verdicts))
    return folder


def added(words: list[str], url: str) -> list[str]:
    """What a command gets besides: a small run's settings, and what stands for a GPU and a server."""
    settings = [*SETTINGS.get((words[0], words[1]), ())]
    if "manifests/sdxl.yaml" in words:
        settings = [f"{stage}.endpoint.base_url={url}" for stage in ("instruct", "shorten")]
    options = [option for setting in settings for option in ("--set", setting)]
    if words[0] in ("generate", "rerun"):
        options += ["--engine", "local"]
    return options + (["--gpus", "1"] if words[0] == "check" else [])


def test_every_command_of_editpairs_ends_well(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = ChatServer()
    told = {}
    for command in (each for each in given() if each.startswith("editpairs ")):
        words = words_of(command, os.environ)[1:]
        if words[0] == "review":
            output, code = review(words, {**os.environ, "PYTHONPATH": str(ROOT)})
            assert code == 0, (command, output)
            words += ["--from", "verdicts.csv"]  # so that there is something to calibrate with
        result = CliRunner().invoke(app, [*words, *(added(words, server.url) if len(words) > 1 else [])])
        if words[0] == "calibrate" and result.exit_code == 2:
            assert "calibrate needs candidates judged" in result.output  # more than a small run has
            continue
        assert result.exit_code == 0, (command, result.output, result.exception)
        told[words[0]] = result.output
    server.shutdown()
    assert "shards" in told["status"]
    assert (folder / "runs" / "toybox" / "report.html").exists()
    assert "nothing is wrong" in told["validate"]
    assert "would go to" in told["publish"]
    assert list((folder / "pairs").rglob("*.parquet"))
    assert (folder / "docs" / "pairs.png").exists()
    assert (folder / "runs" / "editor-toybox" / "editor" / "model_index.json").exists()
    assert "wrote evaluation" in told["evaluate"]


def test_every_command_is_run_by_a_test():
    others = [command for command in given() if not command.startswith("editpairs ")]
    made = {command.split()[1] for command in others if command.startswith("make ")}
    assert made == set(TARGETS)
    assert [command for command in others if not command.startswith("make ")] == []
    assert len(given()) - len(others) >= 18


def test_the_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    snippets = [block for language, block in BLOCK.findall(README.read_text()) if language == "python"]
    assert len(snippets) == 2
    task = pandas.read_parquet(folder / "runs" / "toybox" / "shards").task[0]
    for snippet in snippets:
        exec(compile(snippet.replace('"color"', repr(task)), "README.md", "exec"), {})
