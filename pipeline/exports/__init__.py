"""``editpairs export``: the pairs of a run in the layouts that others read.

Every format is a module with ``write(export)``: it reads the published rows shard by shard, so memory does
not grow with the run, and the same shards give the same bytes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.steps import Step
from pipeline.store.outputs import NewFolder
from pipeline.store.plan import read_part
from pipeline.store.reading import open_parquet
from pipeline.views.rows import bounds_of
from stages.pictures.png import png_size
from stages.shards.stage import PICTURE, SCHEMA
from stages.tasks import Bounds, Tasks

Side = Literal["train", "test"]
SIDES: tuple[Side, ...] = ("train", "test")
BATCH = 64
PUBLISHED = pa.schema([pa.field("id", pa.string()), *SCHEMA])
_PICTURES = {"I": "input", "Tar": "target", "mask": "mask"}
_NAME = re.compile(r"[0-9A-Za-z_-]{1,80}")


@dataclass(frozen=True)
class Export:
    """A run on its way out: ``folder`` is written to, ``done`` is told of every row that was read."""

    state: RunState
    manifest: Manifest
    tasks: Tasks
    folder: NewFolder
    test_share: float
    done: Callable[[int], None]
    written: Counter[str] = field(default_factory=Counter)
    """Rows by task."""

    @cached_property
    def bounds(self) -> Mapping[str, Mapping[str, Bounds]]:
        """The filter's, by task and metric."""
        return bounds_of(self.manifest, self.tasks)

    def files(self) -> Iterator[tuple[Step, int]]:
        """The published files that are up to date, in order: the first turn's, the second's, ..."""
        for step in self.state.steps.values():
            if step.publishes:
                for unit in range(step.unit_count(self.state.plan.parts)):
                    if self.state.done(step, unit):
                        yield step, unit

    def tables(self, step: Step, unit: int) -> Iterator[tuple[Side, pa.Table]]:
        """A published file a few rows at a time, each table of one side.

        Raises:
            UserError: it is damaged, or holds a row that is not of the run, or a picture that is none.
        """
        sides = self.sides(step, unit)
        path = self.state.path(step, unit)
        with open_parquet(path, PUBLISHED) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=PUBLISHED.names):
                table = _named(pa.Table.from_batches([batch]))
                ids = table["id"].to_pylist()
                if foreign := set(ids) - set(sides):
                    raise UserError(
                        f"{path} holds row {min(map(str, foreign))}, which the run has not planned"
                    )
                for side in SIDES:
                    rows = table.filter(pa.array([sides[row_id] == side for row_id in ids]))
                    if rows.num_rows:
                        self.written.update(rows["task"].to_pylist())
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


def file_key(row_id: str) -> str:
    """A row's name within a file's: the id, or its hash if it is no plain name (``../a``, ``a.b``)."""
    if _NAME.fullmatch(row_id):
        return row_id
    return hashlib.blake2b(row_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def picture(row_id: str, kind: str, data: bytes | None) -> dict[str, Any]:
    """A picture as it is published, once its header was looked at.

    Its path is made here: whoever has read a picture without bytes from a path has opened a file of another's
    choice.

    Raises:
        UserError: it is no picture.
    """
    try:
        png_size(data)
    except ValueError as error:
        raise UserError(f"row {row_id}, {kind}: {error}; editpairs validate looks at all rows") from error
    return {"bytes": data, "path": f"{file_key(row_id)}-{kind}.png"}


def _named(table: pa.Table) -> pa.Table:
    """The table with its pictures looked at, and named by their rows."""
    ids = table["id"].to_pylist()
    for column, kind in _PICTURES.items():
        pictures = [
            picture(str(row_id), kind, (value or {}).get("bytes"))
            for row_id, value in zip(ids, table[column].to_pylist(), strict=True)
        ]
        at = table.schema.get_field_index(column)
        table = table.set_column(at, pa.field(column, PICTURE), pa.array(pictures, PICTURE))
    return table


def formats() -> Mapping[str, Callable[[Export], None]]:
    """What writes each format, by the name that ``--to`` takes."""
    from pipeline.exports import magicbrush, parquet, preference, tars

    return {
        "datasets": parquet.write,
        "webdataset": tars.write,
        "magicbrush": magicbrush.write,
        "preference": preference.write,
    }
