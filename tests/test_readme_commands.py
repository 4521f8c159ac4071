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
from tests.toybox_runs import ROOT, SMALL

README = ROOT / "README.md"
ELSEWHERE = {
    "editpairs generate manifests/editor-pairs.yaml": "hours",
    "editpairs train manifests/editor-toybox.yaml": "tests/editor/test_training.py trains a smaller one",
    "editpairs evaluate runs/editor-toybox/editor": "tests/editor/test_evaluation.py",
}
"""Commands that are not run here, by their beginning, and why."""


def given() -> list[str]:
    """The commands of the README that are run here."""
    lines = [line for line in commands_of(README, "") if line.startswith("editpairs ")]
    return [line for line in lines if not line.startswith(tuple(ELSEWHERE))]


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
    """What a command gets besides: the settings of the small run, and what stands for a GPU and a server."""
    settings: list[str] = []
    if "manifests/toybox.yaml" in words:
        settings = ["runs=runs", *SMALL]
    if "manifests/sdxl.yaml" in words:
        settings = [f"{stage}.endpoint.base_url={url}" for stage in ("instruct", "shorten")]
    options = [option for setting in settings for option in ("--set", setting)]
    if words[0] in ("generate", "rerun"):
        options += ["--engine", "local"]
    return options + (["--gpus", "1"] if words[0] == "check" else [])


def test_every_command_about_a_run_ends_well(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server = ChatServer()
    commands = given()
    assert len(commands) >= 12
    told = {}
    for command in commands:
        words = words_of(command, os.environ)[1:]
        if words[0] == "review":
            output, code = review(words, {**os.environ, "PYTHONPATH": str(ROOT)})
            assert code == 0, (command, output)
            words += ["--from", "verdicts.csv"]  # so that there is something to calibrate with
        result = CliRunner().invoke(app, [*words, *added(words, server.url)])
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


def test_the_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    snippets = [block for language, block in BLOCK.findall(README.read_text()) if language == "python"]
    assert len(snippets) == 2
    task = pandas.read_parquet(folder / "runs" / "toybox" / "shards").task[0]
    for snippet in snippets:
        exec(compile(snippet.replace('"color"', repr(task)), "README.md", "exec"), {})


def test_commands_that_are_not_run_here_are_still_in_the_readme():
    text = README.read_text(encoding="utf-8")
    assert all(re.search(rf"^{re.escape(command)}", text, re.MULTILINE) for command in ELSEWHERE)
