"""Texts and places of others, given to every command: a terminal shows them and does nothing they say."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from pipeline import cli
from tests.pipeline.fake_stages import Write
from tests.pipeline.runs import FakeRun
from tests.pipeline.test_shown import HOSTILE, forbidden
from tests.stages.tiny_shards import given_row, write_shards
from tests.toybox_runs import ROOT, SMALL

FOLDER = "[INST] [red]x :smile: \x1b]0;t\x07 \x9b31m \u202e\u200b\u2028"
"""A name that a file system takes."""
IN_A_MANIFEST = "".join(character for character in FOLDER if character >= " ")
"""A manifest's paths have no control characters."""


@pytest.fixture
def editpairs(monkeypatch, capsys):
    """Calls the command; exit code, output and errors, none of which does anything to a terminal."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["editpairs", *map(str, arguments)])
        try:
            cli.main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        out, errors = capsys.readouterr()
        assert not forbidden(out), arguments
        assert not forbidden(errors), arguments
        assert isinstance(code, int)
        return code, out, errors

    return call


@pytest.fixture
def failing(make_run, monkeypatch) -> FakeRun:
    """A run in which a row fails with a hostile reason, in a folder of a hostile name."""
    run = make_run(IN_A_MANIFEST)
    decide = Write.decide

    def fails(self, row):
        if row["seed"] % 4 == 0:
            raise ValueError(HOSTILE.replace("\ud800", ""))
        return decide(self, row)

    monkeypatch.setattr(Write, "decide", fails)
    run.generate()
    return run


@pytest.mark.parametrize("command", [["status"], ["status", "--watch"], ["cost"], ["validate"], ["inspect"]])
def test_commands_of_a_run_with_hostile_reasons(failing, editpairs, command):
    code, out, errors = editpairs(command[0], failing.run, *command[1:])
    assert code in (0, 1, 2)
    assert "x :smile:" in out + errors or command == ["cost"]
    if command == ["status"]:
        assert code == 0
        assert "[/INST] [red]x[/red]" in " ".join(out.split())


def test_progress_shows_hostile_text(failing, capsys):
    from pipeline.engine.progress import Progress
    from pipeline.shown import terminal

    progress = Progress(terminal())
    progress.note(HOSTILE)
    with progress.stage(HOSTILE, 1, 1) as advance:
        advance(1)
    out, _ = capsys.readouterr()
    assert not forbidden(out)
    assert "[/INST]" in out


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--task", HOSTILE], ["validate"]])
def test_commands_of_a_hostile_shard(tmp_path, editpairs, command):
    text = HOSTILE.replace("\ud800", "")
    row = {**given_row("remove"), "id": text, "instruction": text, "output_caption": text}
    shards = tmp_path / FOLDER
    write_shards(shards, [[row, row]])
    out = ["--out", tmp_path / "sheet.png"] if command == ["inspect"] else []
    code, shown, errors = editpairs(command[0], shards, *command[1:], *out)
    assert code == {"inspect": 0 if out else 2, "validate": 1}[command[0]]
    assert "[/INST]" in shown + errors
    assert (tmp_path / "sheet.png").exists() == bool(out)


@pytest.fixture
def named(toybox_run, tmp_path, monkeypatch) -> Path:
    """A finished run in a folder of a hostile name."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(toybox_run.folder, tmp_path / FOLDER / "toybox")
    return tmp_path / FOLDER / "toybox"


def test_commands_of_a_run_in_a_hostile_folder(named, editpairs):
    out = named.parent / "out [/red]\x1b[31m"
    keys = [f"runs={json.dumps(str(named.parent))}", *SMALL]
    sets = [part for key in keys for part in ("--set", key)]
    for command in (
        ["status", named], ["cost", named], ["validate", named], ["inspect", named, "--out", out / "a.png"],
        ["report", named, "--out", out / "a.html"], ["export", named, "--to", "datasets", "--out", out / "d"],
    ):  # fmt: skip
        code, shown, errors = editpairs(*command)
        assert (code, errors) == (0, ""), command
        assert "[red]x" in shown or command[0] == "cost"
    assert {path.name for path in out.iterdir()} == {"a.png", "a.html", "d"}
    code, _, errors = editpairs("sweep", "manifests/toybox.yaml", *sets, "--sheet", out / "c.png")
    assert code == 2
    assert "runs" in errors
    page = (out / "a.html").read_text(encoding="utf-8")
    assert not forbidden(page)
    assert editpairs("regenerate", named, HOSTILE)[0] == 2


@pytest.mark.parametrize("place", ["/proc/x", "file/x", "full", "nosuch://bucket/x"])
def test_an_out_that_cannot_be_written_is_one_message(toybox_run, tmp_path, monkeypatch, editpairs, place):
    monkeypatch.chdir(ROOT)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years")
    out = place if "://" in place else tmp_path / place
    sets = [part for key in toybox_run.settings for part in ("--set", key)]
    for command in (
        ["report", toybox_run.folder, "--out"], ["inspect", toybox_run.folder, "--out"],
        ["export", toybox_run.folder, "--to", "webdataset", "--out"],
        ["sweep", "manifests/toybox.yaml", *sets, "--out"],
        ["sweep", "manifests/toybox.yaml", *sets, "--sheet"],
    ):  # fmt: skip
        code, shown, errors = editpairs(*command, out)
        assert code == 2, command
        assert errors.startswith("error: ")
        assert len(errors.splitlines()) == 1
        assert "wrote" not in shown
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "thesis.txt"]


def test_no_folder_is_named_after_a_protocol(toybox_run, tmp_path, monkeypatch, editpairs):
    """It was: ``s3://bucket/x`` wrote a folder ``s3:`` here."""
    monkeypatch.chdir(tmp_path)
    for url in ("s3://no-such-bucket-of-mine/x", "s3:///x", "nosuch://x"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert editpairs("inspect", toybox_run.folder, "--out", url)[0] == 2
    assert list(tmp_path.iterdir()) == []
