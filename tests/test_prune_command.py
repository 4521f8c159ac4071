"""``editpairs prune`` and the other commands afterwards, on a toybox run."""

import os
import pty
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import editpairs
from pipeline.cli import app
from pipeline.views.pairs import each_pair
from tests.toybox_runs import ROOT, Run


def told(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


@pytest.fixture
def run(toybox_run, tmp_path) -> Run:
    mine = Run(tmp_path)
    shutil.copytree(toybox_run.folder, mine.folder)
    return mine


def test_without_yes_and_without_a_terminal_it_says_what_and_drops_nothing(run):
    before = run.files("source")
    text = told("prune", run.folder)
    assert "source source_image 2" in text
    assert "nothing was dropped; --yes drops them" in text
    assert run.files("source") == before


@pytest.mark.parametrize(("answer", "dropped"), [("toybox", True), ("yes", False)])
def test_on_a_terminal_the_name_of_the_run_confirms(run, answer, dropped):
    before = run.files("source")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pipeline.cli", "prune", str(run.folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    while True:  # until the process closes its end
        try:
            if not os.read(ours, 4096):
                break
        except OSError:
            break
    assert process.wait() == 0
    assert (run.files("source") != before) == dropped


def test_every_command_says_what_is_no_longer_there(run):
    before = told("status", run.folder)
    size = sum(path.stat().st_size for path in run.folder.rglob("*.parquet"))
    assert "in 2 files" in told("prune", run.folder, "--yes")
    assert sum(path.stat().st_size for path in run.folder.rglob("*.parquet")) < 0.9 * size
    line = "pruned: source has no source_image in 2 parts"
    status = told("status", run.folder)
    assert line in status
    assert status.replace(status[status.index("pruned:") :], "").strip() == before
    assert line in editpairs.open(run.folder).status().pruned[0]
    assert line in told("validate", run.folder)
    report = run.folder / "report.html"
    told("report", run.folder)
    assert line in report.read_text()
    told("inspect", run.folder)
    assert "nothing to drop" in told("prune", run.folder)

    row = next(each_pair(run.folder)).id
    lines = told("regenerate", run.folder, row)
    assert "source kept equal to the bit not compared, because pruned: source_image" in lines
    for stage in ("mask", "edit"):
        assert f"{stage} kept not made again it reads source_image of source: pruned" in lines
    assert "score kept equal to the bit filter kept" in lines


def test_other_bounds_give_the_shards_of_the_unpruned_run(run, tmp_path):
    whole = Run(tmp_path / "whole")
    shutil.copytree(run.folder, whole.folder)
    told("prune", run.folder, "--yes")
    for each in (run, whole):
        before = each.files("source", "mask", "edit", "score")
        each.generate_here("filter.default.clip_direction=0.05")
        assert each.files("source", "mask", "edit", "score") == before
    later = ("filter", "select", "shards")
    contents = [{name: content for name, (content, _) in each.files(*later).items()} for each in (run, whole)]
    assert contents[0] == contents[1]
    for name in ("README.md", "SHA256SUMS"):
        assert (run.folder / name).read_bytes() == (whole.folder / name).read_bytes()
