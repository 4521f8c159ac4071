"""Runs of the fake stages in a temporary folder."""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml
from rich.console import Console

from pipeline.engine import generate as engine
from pipeline.engine.progress import Progress
from pipeline.engine.state import RunState
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.store.location import Location, list_folder, locate
from tests.pipeline.fake_stages import FAKES, PLACED

ROOT = Path(__file__).parents[2]
MANIFESTS = [
    path for path in sorted((ROOT / "manifests").glob("*.yaml")) if "captions:" in path.read_text().split()
]
"""The shipped manifests of runs; ``tests/editor/test_training.py`` reads those of trainings."""
TASK = """
index: {index}
family: region
definition: {name} something
verbs: [{name}]
fields: {{original_object: in_input, edited_object: optional, caption: changed}}
ground: none
method: draw_box
region: object
"""


class FakeRun:
    """A manifest of the fake stages, its captions, task files and weights."""

    def __init__(self, folder: Path, captions: list[str] | None = None, **keys: object) -> None:
        self.folder = folder
        (folder / "prompts").mkdir(parents=True)
        for index, name in enumerate(("remove", "add", "color")):
            (folder / "prompts" / f"{name}.yaml").write_text(TASK.format(index=index, name=name))
        (folder / "weights").mkdir()
        (folder / "weights" / "model.safetensors").write_bytes(b"weights")
        captions = captions or [f"a red cube number {i}" for i in range(20)]
        (folder / "captions.txt").write_text("".join(f"{c}\n" for c in captions))
        self.content: dict = {
            "name": "fake",
            "captions": {"file": str(folder / "captions.txt")},
            "rows_per_part": 4,
            "runs": str(folder / "runs"),
            "tasks": {
                "mixture": {"remove": 2, "add": 1, "color": 1},
                "prompts": str(folder / "prompts"),
            },
            "diffusion": {"model": str(folder / "weights")},
            "write": {"batch": 3},
            "draw": {"resources": {"workers": 2}},
            **keys,
        }
        self.path = folder / "manifest.yaml"
        self.save()

    @property
    def run(self) -> Location:
        return locate(self.content["runs"]) / "fake"

    def save(self) -> None:
        self.path.write_text(yaml.safe_dump(self.content))

    def switch(self, name: str, on: bool = True) -> None:
        """Steer the fake stages, in whatever process: see ``Draw.decide``."""
        path = Path(os.environ["FAKE_SWITCHES"]) / name
        path.touch() if on else path.unlink()

    def processes(self, stage: str) -> list[int]:
        """Other processes that have loaded a stage, by the name of its class, and live."""
        loaded = Path(os.environ["FAKE_SWITCHES"]) / "processes"
        lines = loaded.read_text().splitlines() if loaded.exists() else []
        pids = [int(pid) for name, pid in map(str.split, lines) if name == stage]
        return [pid for pid in pids if pid != os.getpid() and Path(f"/proc/{pid}").exists()]

    def manifest(self, *overrides: str) -> Manifest:
        return read_manifest(self.path, overrides, FAKES)

    def generate(self, *overrides: str, **options) -> RunState:
        options = {"engine": "local", **options}
        return engine.generate(self.manifest(*overrides), PLACED, progress=QUIET, **options)

    def rerun(self, stage: str, *overrides: str, **options) -> RunState:
        options = {"engine": "local", **options}
        return engine.rerun(self.manifest(*overrides), PLACED, stage, progress=QUIET, **options)

    def driver(self, *overrides: str, engine: str = "local") -> subprocess.Popen:
        """``generate`` in a process of its own, which can be killed."""
        code = (
            "import sys; from pathlib import Path; from tests.pipeline.runs import generate_in_process; "
            "generate_in_process(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, str(self.path), engine, *overrides],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "FAKE_DRIVER": str(self.folder)},
            stdout=subprocess.DEVNULL,
        )

    def files(self, *stages: str) -> dict[str, bytes]:
        """The committed files by path, of some stages or all."""
        return {
            str(path.relative_to(self.run)): path.read_bytes()
            for path in files_below(self.run)
            if path.suffix == ".parquet" and (not stages or path.parent.name in stages)
        }

    def inodes(self, *stages: str) -> dict[str, int]:
        """The inode of each committed file: a file made again has another."""
        return {name: (self.run / name).stat().st_ino for name in self.files(*stages)}


def files_below(folder: Location) -> list[Location]:
    """All files below a folder, sorted.

    ``rglob`` of an object store takes the name of the folder as a pattern.
    """
    found: list[Location] = []
    for name, is_folder in sorted(list_folder(folder).items()):
        found += files_below(folder / name) if is_folder else [folder / name]
    return found


QUIET = Progress(Console(quiet=True))


def generate_in_process(path: Path, engine_name: engine.Engine, overrides: list[str]) -> None:
    engine.generate(read_manifest(path, overrides, FAKES), PLACED, progress=QUIET, engine=engine_name)


def assert_sum_is_exact(state: RunState) -> None:
    """given = kept + rejected + failed + pending, and what a stage keeps the next is given."""
    from pipeline.engine.ledger import count_run

    counts = count_run(state)
    assert counts[0].given == state.plan.tasks
    for count in counts:
        parts: list[Mapping[str, int]] = [count.kept, count.rejected, count.failed, count.pending]
        for task in state.plan.tasks:
            assert sum(part.get(task, 0) for part in parts) == count.given[task], (count.name, task)
            assert all(part.get(task, 0) >= 0 for part in parts)
    for before, after in itertools.pairwise(counts):
        assert +before.kept == +after.given
