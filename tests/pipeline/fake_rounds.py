"""A chain of fake stages that is drawn in rounds, with the names of the true one.

Two of its stages reject: ``mask`` and ``filter``. Both depend on the seed alone, so a test can tell what each
round must keep (:func:`expected`).
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from pipeline.engine import generate as engine
from pipeline.engine.ledger import count_run
from pipeline.engine.state import RunState
from pipeline.manifest.manifest import Manifest, read_manifest
from stages.base import Decision, Stage, StageConfig, kept, rejected
from stages.placed import PlacedStage, first_turn
from stages.publisher import Publisher
from stages.rounds.again import begun
from stages.rounds.unroll import Rounds
from stages.seeds import derive_seed
from tests.pipeline.fake_stages import Draw, Fake, Limits, Publication, Write
from tests.pipeline.runs import QUIET, ROOT, FakeRun


def pixel(seed: int, place: int) -> int:
    """What a picture shows at one place."""
    return hashlib.blake2b(f"{seed}".encode()).digest()[place]


class Paint(Fake):
    """The picture depends on the seed. Each row that is painted is noted. Waits at rows, by their caption."""

    reads: ClassVar[dict] = {"plan": ["seed"], "write": ["instruction"]}
    schema = pa.schema([pa.field("picture", pa.binary())])
    Config = Draw.Config

    def decide(self, row: dict) -> Decision:
        Draw.decide(self, row)
        if "FAKE_SWITCHES" in os.environ:
            with (Path(os.environ["FAKE_SWITCHES"]) / "painted").open("a") as painted:
                painted.write(f"{row['seed']}\n")
        return kept(picture=hashlib.blake2b(f"{row['seed']}".encode()).digest())


class PaintAgain(Paint):
    schema = pa.schema([*Paint.schema, ("seed", pa.int64()), ("round", pa.int16())])

    def __call__(self, rows: pa.Table) -> pa.Table:
        seeds, rounds = begun(rows)
        rows = rows.set_column(rows.column_names.index("seed"), "seed", pa.array(seeds, pa.int64()))
        self.begun = dict(zip(seeds, rounds, strict=True))
        return super().__call__(rows)

    def decide(self, row: dict) -> Decision:
        picture = super().decide(row).columns["picture"]
        return kept(picture=picture, seed=row["seed"], round=self.begun[row["seed"]])


class Look(Fake):
    """Rejects dark pictures; what it rejects as ``never`` is not painted again."""

    final: ClassVar = ("never",)
    reads: ClassVar[dict] = {"source": ["picture"], "plan": ["seed"]}
    schema = pa.schema([pa.field("mask", pa.int64())])

    class Config(StageConfig):
        least: int = 40
        never: int = 10

    def decide(self, row: dict) -> Decision:
        assert row["picture"] == hashlib.blake2b(f"{row['seed']}".encode()).digest()
        level = row["picture"][0]
        if level < self.config.never:
            return rejected("never")
        return rejected("dark") if level < self.config.least else kept(mask=row["seed"])


class Choose(Fake):
    light: ClassVar[bool] = True
    reads: ClassVar[dict] = {"plan": ["task"], "source": ["picture"], "mask": ["mask"]}
    schema = pa.schema([pa.field("choice", pa.int64())])
    Config = Limits

    def decide(self, row: dict) -> Decision:
        fine = row["picture"][1] / 255 >= self.config.default.get("brightness", 0.6)
        return kept(choice=row["mask"]) if fine else rejected("brightness_low")


class Few(Fake):
    """Decides over the whole run: all but the brightest picture stay."""

    light: ClassVar[bool] = True
    wide: ClassVar[bool] = True
    reads: ClassVar[dict] = {"source": ["picture"], "filter": ["choice"]}
    schema = pa.schema([])

    def survey(self, tables: Iterable[pa.Table]) -> None:
        self.brightest = max((p for table in tables for p in table["picture"].to_pylist()), default=b"")

    def decide(self, row: dict) -> Decision:
        return rejected("brightest") if row["picture"] == self.brightest else kept()


class Publish(Fake, Publisher[Any]):
    light: ClassVar[bool] = True
    reads: ClassVar[dict] = {
        "plan": ["task", "seed"],
        "write": ["instruction"],
        "source": ["picture"],
        "mask": ["mask"],
        "filter": ["choice"],
    }
    schema = pa.schema([("T", pa.string()), ("Tar", pa.binary()), ("mask", pa.int64()), ("seed", pa.int64())])
    Config = Publication

    def decide(self, row: dict) -> Decision:
        assert row["choice"] == row["mask"] == row["seed"], "all of one round"
        return kept(T=row["instruction"], Tar=row["picture"], mask=row["mask"], seed=row["seed"])

    @staticmethod
    def describe(run: Path, summary: Any) -> str:
        return repr(summary)


STAGES: dict[str, type[Stage[Any]]] = {
    "write": Write,
    "source": Paint,
    "mask": Look,
    "filter": Choose,
    "select": Few,
    "shards": Publish,
}


def placed(rounds: int) -> dict[str, PlacedStage]:
    """The chain with its rounds written out."""
    repeated = Rounds(1, rounds, ("source", "mask", "filter"), "source", "plan")
    unrolled = repeated.unroll(list(first_turn(STAGES).values()), PaintAgain)
    return {stage.step: stage for stage in unrolled}


class RoundsRun(FakeRun):
    """A run of this chain, by default in three rounds."""

    def __init__(self, folder: Path, captions: list[str] | None = None, **keys: object) -> None:
        super().__init__(folder, captions, **{"rounds": 3, **keys})
        del self.content["draw"]
        self.save()

    def manifest(self, *overrides: str) -> Manifest:
        return read_manifest(self.path, overrides, STAGES)

    def generate(self, *overrides: str, **options: Any) -> RunState:
        manifest = self.manifest(*overrides)
        options = {"engine": "local", **options}
        return engine.generate(manifest, placed(manifest.rounds), progress=QUIET, **options)

    def rerun(self, stage: str, *overrides: str, **options: Any) -> RunState:
        manifest = self.manifest(*overrides)
        options = {"engine": "local", **options}
        return engine.rerun(manifest, placed(manifest.rounds), stage, progress=QUIET, **options)

    def driver(self, *overrides: str, engine: str = "local") -> subprocess.Popen:
        code = (
            "import sys; from pathlib import Path; from tests.pipeline.fake_rounds import in_process; "
            "in_process(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, str(self.path), engine, *overrides],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "FAKE_DRIVER": str(self.folder)},
            stdout=subprocess.DEVNULL,
        )

    def painted(self) -> list[int]:
        """The seeds of all pictures painted since the last call."""
        path = Path(os.environ["FAKE_SWITCHES"]) / "painted"
        seeds = [int(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return seeds


def in_process(path: Path, engine_name: engine.Engine, overrides: list[str]) -> None:
    manifest = read_manifest(path, overrides, STAGES)
    engine.generate(manifest, placed(manifest.rounds), progress=QUIET, engine=engine_name)


def expected(seed: int, rounds: int, brightness: float = 0.6) -> tuple[str, int, int]:
    """The outcome of a row by its planned seed: the last reason or "kept", its round, its seed there."""
    for round in range(1, rounds + 1):
        seed = derive_seed(seed, "round", round) if round > 1 else seed
        if pixel(seed, 0) < 10:
            return "never", round, seed
        if pixel(seed, 0) < 40:
            reason = "dark"
        elif pixel(seed, 1) / 255 < brightness:
            reason = "brightness_low"
        else:
            return "kept", round, seed
    return reason, rounds, seed


def assert_rounds_add_up(state: RunState) -> None:
    """given = kept + rejected + failed + pending, and each step is given what its predecessors decided."""
    counts = {count.name: count for count in count_run(state)}
    for name, step in state.steps.items():
        count = counts[name]
        decided = [count.kept, count.rejected, count.failed, count.pending]
        for task in state.plan.tasks:
            assert sum(rows[task] for rows in decided) == count.given[task], (name, task)
        given = sum(counts[each.step].giving(each).total() for each in step.rows_of)
        assert count.given.total() == (given if step.rows_of else state.plan.rows), name
    ends = [count.failed.total() + count.pending.total() for count in counts.values()]
    first, *_, publish = counts.values()
    lost = first.rejected.total() + counts["select"].rejected.total()
    last = max(step.round for step in state.steps.values())
    for step in state.steps.values():
        for (_, status, reason), rows in counts[step.name].decided.items():
            if step.stage in ("mask", "filter") and status == "rejected":
                lost += rows if step.round == last or reason in STAGES[step.stage].final else 0
    assert sum(ends) + lost + publish.kept.total() == state.plan.rows, "each planned row ends once"
