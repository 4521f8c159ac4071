"""What cannot be read is never said to be missing: not by a pattern, not by a listing, not by a hash."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import UserError
from pipeline.inputs.captions import read_captions
from pipeline.manifest.fingerprint import model_identity
from stages.base import Weights
from stages.tasks import TaskError, load_tasks
from tests.pipeline.runs import ROOT


@pytest.fixture
def locked(monkeypatch):
    """Forbids a path to this process: permissions would not stop root."""
    forbidden: list[str] = []

    def deny(function):
        def checked(path=".", *arguments, **options):
            if not isinstance(path, int) and os.fspath(path) in forbidden:
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return function(path, *arguments, **options)

        return checked

    for name in ("scandir", "listdir", "open"):
        monkeypatch.setattr(os, name, deny(getattr(os, name)))
    monkeypatch.setattr("io.open", deny(open))
    monkeypatch.setattr(Path, "open", deny(Path.open))
    return forbidden.append


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_shards_that_cannot_be_listed_are_not_said_to_be_missing(tmp_path, locked, command):
    (tmp_path / "shards").mkdir()
    locked(str(tmp_path / "shards"))
    for place in (tmp_path, tmp_path / "shards") if command == "inspect" else (tmp_path / "shards",):
        told = CliRunner().invoke(app, [command, str(place)])
        assert told.exit_code == 2
        assert told.output == f"error: {tmp_path}/shards: Permission denied\n"


def test_task_files_that_cannot_be_listed_are_not_said_to_be_missing(tmp_path, locked):
    shutil.copytree(ROOT / "prompts", tmp_path / "prompts")
    locked(str(tmp_path / "prompts"))
    with pytest.raises(TaskError, match=r"prompts cannot be read: Permission denied"):
        load_tasks(tmp_path / "prompts")


@pytest.mark.parametrize("pattern", ["captions/*.csv", "captions/**/*.csv", "captions"])
def test_captions_that_cannot_be_listed_are_not_said_to_be_missing(tmp_path, locked, pattern):
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "a.csv").write_text("caption\na car\n")
    assert read_captions(tmp_path / pattern, "caption").to_pylist() == ["a car"]
    locked(str(tmp_path / "captions"))
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        read_captions(tmp_path / pattern, "caption")


def test_weights_that_cannot_be_read_are_told_with_their_key(tmp_path, locked):
    weights = tmp_path / "weights" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    locked(str(weights))
    with pytest.raises(UserError, match=r"^clip\.model: .*model\.safetensors cannot be read: Permission"):
        model_identity("clip", Weights(model=str(weights.parent)))
