"""Runs of the toybox's manifest, made small, by the command line."""

import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from typer.testing import CliRunner

from pipeline.cli import app

ROOT = Path(__file__).parents[1]
STAGES = ["instruct", "task_check", "source", "mask", "edit", "score", "filter", "select"]
SMALL = [
    "rows=22",
    "rows_per_part=11",
    "diffusion.steps=10",
    "edit.batch=2",
    "source.batch=4",
    "score.batch=3",
]
"""Odd batches, so that a row that is made again alone, and comes first, was in every place of a batch."""


class Run:
    """One run of ``manifests/toybox.yaml``, made small, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "toybox"
        self.settings = [f"runs={folder}", *SMALL]

    def command(self, *arguments: str, settings: tuple[str, ...] = ()) -> list[str]:
        sets = [part for key in (*self.settings, *settings) for part in ("--set", key)]
        verb, *rest = arguments
        return [sys.executable, "-m", "pipeline.cli", verb, "manifests/toybox.yaml", *rest, *sets]

    def call(self, *arguments: str, settings: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Give the command as a user does, in a process of its own."""
        command = self.command(*arguments, settings=settings)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def generate_here(self, *settings: str) -> None:
        """Make the run in this process. The model libraries load once, which takes as long as a small run."""
        command = self.command("generate", "--engine", "local", settings=settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            told = CliRunner().invoke(app, command[3:])
        assert told.exit_code == 0, (told.output, told.exception)

    def files(self, *stages: str) -> dict[str, tuple[bytes, int]]:
        """Content and inode of the files of some stages."""
        paths = sorted(path for stage in stages for path in (self.folder / stage).glob("*.parquet"))
        names = [str(path.relative_to(self.folder)) for path in paths]
        return {
            name: (path.read_bytes(), path.stat().st_ino) for name, path in zip(names, paths, strict=True)
        }

    def shards(self) -> pandas.DataFrame:
        return pandas.read_parquet(sorted((self.folder / "shards").glob("train-*.parquet")))
