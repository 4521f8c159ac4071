"""The judge's verdicts about every candidate of a run, as a file for ``editpairs review --from``."""

import shutil
import sys

import pytest
from typer.testing import CliRunner

from pipeline.api import open_run
from pipeline.cli import app
from pipeline.verdicts.book import Book
from tests.toybox_runs import ROOT
from toybox.evaluation import verdicts


def test_the_judge_reviews_every_prompt_to_prompt_candidate(toybox_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run, out = shutil.copytree(toybox_run.folder, tmp_path / "run"), tmp_path / "verdicts.csv"
    monkeypatch.setattr(sys, "argv", ["verdicts", str(run), str(out)])
    verdicts.main()
    told = CliRunner().invoke(app, ["review", str(run), "--from", str(out)])
    assert told.exit_code == 0, told.output
    opened = open_run(run)
    stored = Book(opened.state.folder, opened.state.plan.digest).read()
    scores = opened.scores()
    drawn = scores[scores.task.map(lambda task: opened.tasks[task].method == "prompt2prompt")]
    assert sorted((v.id, v.candidate) for v in stored) == sorted(zip(drawn.id, drawn.candidate, strict=True))
    assert {v.who for v in stored} == {"judge"}
    assert {v.verdict for v in stored} <= {"right", "wrong"}


@pytest.mark.parametrize("arguments", [[], ["run"]])
def test_both_paths_are_needed(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verdicts", *arguments])
    with pytest.raises(SystemExit):
        verdicts.main()
    assert "required" in capsys.readouterr().err
