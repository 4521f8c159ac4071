"""``editpairs export``: the pairs of a run in the layouts that others read.

Every format is a module with ``write(export)``: it reads the published rows shard by shard, so memory does
not grow with the run, and the same shards give the same bytes.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.manifest import Manifest
from pipeline.plan import read_part
from pipeline.state import RunState
from pipeline.steps import Step
from pipeline.storage import arrow_source
from stages.tasks import Tasks

Side = Literal["train", "test"]
SIDES: tuple[Side, ...] = ("train", "test")
BATCH = 64


@dataclass(frozen=True)
class Export:
    """A run on its way out: ``folder`` is written to, ``done`` is told of every row that was read."""

    state: RunState
    manifest: Manifest
    tasks: Tasks
    folder: Path
    test_share: float
    done: Callable[[int], None]

    def files(self) -> Iterator[tuple[Step, int]]:
        """The published files that are up to date, in order: the first turn's, the second's, ..."""
        for step in self.state.steps.values():
            if step.parts_per_unit is not None:
                for unit in range(step.unit_count(self.state.plan.parts)):
                    if self.state.done(step, unit):
                        yield step, unit

    def tables(self, step: Step, unit: int) -> Iterator[tuple[Side, pa.Table]]:
        """A published file a few rows at a time, each table of one side."""
        sides = self.sides(step, unit)
        with pq.ParquetFile(arrow_source(self.state.path(step, unit))) as file:
            for batch in file.iter_batches(batch_size=BATCH):
                table = pa.Table.from_batches([batch])
                of_rows = [sides[row_id] for row_id in table["id"].to_pylist()]
                for side in SIDES:
                    rows = table.filter(pa.array([s == side for s in of_rows]))
                    if rows.num_rows:
                        yield side, rows
                self.done(table.num_rows)

    def sides(self, step: Step, unit: int) -> dict[str, Side]:
        """On which side each planned row of a file's parts is, by id."""
        sides: dict[str, Side] = {}
        for part in step.parts(unit, self.state.plan.parts):
            for row in read_part(self.state.folder.plan, part, ["id", "caption"]).to_pylist():
                sides[row["id"]] = side_of(row["caption"], self.test_share)
        return sides


def side_of(caption: str, test_share: float) -> Side:
    """By the planned caption's hash alone: all edits and turns of a caption are on one side, in any run."""
    digest = hashlib.blake2b(caption.encode(errors="surrogatepass"), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") < test_share * 2**64 else "train"


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that appears under its name once all is written.

    Raises:
        UserError: something is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: there is something already; name a new folder, or delete that one")
    under_way = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(under_way, ignore_errors=True)
    under_way.mkdir(parents=True)
    try:
        yield under_way
        if out.exists():
            out.rmdir()
        under_way.rename(out)
    finally:
        shutil.rmtree(under_way, ignore_errors=True)


def formats() -> Mapping[str, Callable[[Export], Any]]:
    """What writes each format, by the name that ``--to`` takes."""
    from pipeline.exports import magicbrush, parquet, preference, tars

    return {
        "datasets": parquet.write,
        "webdataset": tars.write,
        "magicbrush": magicbrush.write,
        "preference": preference.write,
    }
