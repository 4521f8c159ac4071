"""Runs of fake stages with a picture that filtering again does not need: the sketch before ``draw``.

``python -m tests.pipeline.pruned_runs MANIFEST N`` prunes a run and is killed before it replaces file N.
"""

import os
import signal
import sys
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from pipeline.engine import generate as engine
from pipeline.engine.pruning import prunable, prune
from pipeline.engine.state import RunState
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.views.run import open_state
from stages.base import Decision, StageConfig, kept
from stages.placed import first_turn
from tests.pipeline.fake_stages import FAKES, Draw, Fake
from tests.pipeline.runs import QUIET, FakeRun


class Sketch(Fake):
    """Draws something of the instruction: bytes that only ``draw`` reads, and a text."""

    reads: ClassVar[dict] = {"write": ["instruction"]}
    schema = pa.schema(
        [pa.field("lines", pa.list_(pa.struct([("ink", pa.binary())]))), pa.field("title", pa.string())]
    )

    class Config(StageConfig):
        ink: str = "black"

    def decide(self, row: dict) -> Decision:
        if "smudge" in row["instruction"]:
            raise ValueError("no sketch of that")
        inks = [{"ink": f"{self.config.ink} {row['instruction']} {n}".encode() * 9} for n in range(2)]
        return kept(lines=inks, title=row["instruction"][:5])


class DrawOver(Draw):
    reads: ClassVar[dict] = {**Draw.reads, "sketch": ["lines"]}

    def decide(self, row: dict) -> Decision:
        inks = b"".join(line["ink"] for line in row["lines"]).decode()
        return super().decide({**row, "instruction": f"{inks} {row['instruction']}"})


STAGES = {
    "write": FAKES["write"],
    "sketch": Sketch,
    "draw": DrawOver,
    "sieve": FAKES["sieve"],
    "shards": FAKES["shards"],
}
PLACED = first_turn(STAGES)


class SketchedRun(FakeRun):
    def manifest(self, *overrides: str) -> Manifest:
        return read_manifest(self.path, overrides, STAGES)

    def generate(self, *overrides: str, progress=QUIET, **options) -> RunState:
        options = {"engine": "local", **options}
        return engine.generate(self.manifest(*overrides), PLACED, progress=progress, **options)

    def rerun(self, stage: str, *overrides: str, **options) -> RunState:
        options = {"engine": "local", **options}
        return engine.rerun(self.manifest(*overrides), PLACED, stage, progress=QUIET, **options)

    def opened(self) -> RunState:
        state = open_state(self.run)
        state.scan()
        return state

    def prune(self, check=lambda: None) -> list[tuple[str, int]]:
        state = self.opened()
        with state.folder.owned():
            files = list(prune(state, PLACED, list(prunable(state, PLACED)), check))
        return [(each.step, each.unit) for each in files]


def die_before(number: int):
    """A check of the lock that kills its process at call ``number``, from 0."""
    calls = iter(range(1000))

    def check() -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return check


def main() -> None:
    path, number = sys.argv[1:]
    run = SketchedRun.__new__(SketchedRun)
    run.path = Path(path)
    run.content = {"runs": str(run.path.parent / "runs")}
    run.prune(die_before(int(number)))


if __name__ == "__main__":
    main()
