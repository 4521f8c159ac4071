"""``editpairs export``: write the pairs of a run in the formats of other projects.

Each format is a module with a function ``write(export)``. It reads the published rows shard by shard, so
memory use does not grow with the run. The same shards give the same bytes.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.steps import Step
from pipeline.store.outputs import NewFolder
from pipeline.store.plan import origins
from pipeline.store.reading import open_parquet
from pipeline.views.rows import bounds_of, calibrated
from stages.filter.model import Models
from stages.pictures.png import png_size
from stages.shards.card import PICTURE, Columns
from stages.shards.columns import KEPT, columns_of, schema_of
from stages.tasks import Bounds, Tasks

Side = Literal["train", "test"]
SIDES: tuple[Side, ...] = ("train", "test")
BATCH = 64
_PICTURES = {"I": "input", "Tar": "target", "mask": "mask"}
_NAME = re.compile(r"[0-9A-Za-z_-]{1,80}")


@dataclass(frozen=True)
class Export:
    """An export in progress: ``folder`` receives the files; ``done`` is called after every row read."""

    state: RunState
    manifest: Manifest
    tasks: Tasks
    folder: NewFolder
    test_share: float
    done: Callable[[int], None]
    licence: str = "other"
    """Identifier for the card, as the Hub knows it. ``other``: whoever publishes has not chosen one."""
    written: Counter[tuple[str, Side]] = field(default_factory=Counter)
    """Number of rows written, by task and side."""

    @property
    def stages(self) -> set[str]:
        """The stages of the run."""
        return {step.stage for step in self.state.steps.values()}

    @cached_property
    def columns(self) -> Columns:
        """Type and meaning of the published columns."""
        return columns_of(self.stages | ({KEPT} if self.manifest.captions.keep else set()))

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of the published rows."""
        return pa.schema([pa.field("id", pa.string()), *schema_of(self.columns)])

    @cached_property
    def bounds(self) -> Mapping[str, Mapping[str, Bounds]]:
        """The filter's, by task and metric."""
        return bounds_of(self.manifest, self.tasks)

    @cached_property
    def models(self) -> Models:
        """The models of a calibrated filter, by task."""
        return calibrated(self.manifest)

    def files(self) -> Iterator[tuple[Step, int]]:
        """The published files that are up to date, in order: first turn, second turn, ..."""
        for step in self.state.steps.values():
            if step.publishes:
                for unit in range(step.unit_count(self.state.plan.parts)):
                    if self.state.done(step, unit):
                        yield step, unit

    def present(self, step: Step, unit: int) -> list[Side]:
        """The sides that a published file has rows of. Only the ids are read.

        Raises:
            UserError: the file is damaged.
        """
        sides = self.sides(step.parts(unit, self.state.plan.parts))
        with open_parquet(self.state.path(step, unit), self.schema) as file:
            ids = [i for batch in file.iter_batches(columns=["id"]) for i in batch["id"].to_pylist()]
        there = {sides.get(row_id) for row_id in ids}
        return [side for side in SIDES if side in there]

    def tables(self, step: Step, unit: int) -> Iterator[tuple[Side, pa.Table]]:
        """Yield a published file in small tables; all rows of a table are on one side (train or test).

        Raises:
            UserError: the file is damaged, or holds a row that the run did not plan, or an invalid picture.
        """
        sides = self.sides(step.parts(unit, self.state.plan.parts))
        path = self.state.path(step, unit)
        with open_parquet(path, self.schema) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=self.schema.names):
                table = _named(pa.Table.from_batches([batch]))
                ids = table["id"].to_pylist()
                if foreign := set(ids) - set(sides):
                    raise UserError(
                        f"{path} holds row {min(map(str, foreign))}, which the run has not planned"
                    )
                for side in SIDES:
                    rows = table.filter(pa.array([sides[row_id] == side for row_id in ids]))
                    if rows.num_rows:
                        self.written.update((task, side) for task in rows["task"].to_pylist())
                        yield side, rows
                self.done(table.num_rows)

    def sides(self, parts: Iterable[int]) -> dict[str, Side]:
        """The side of each planned row in some parts, by id."""
        by_id = (entry for part in parts for entry in origins(self.state.folder.plan, part).items())
        return {row_id: side_of(origin, self.test_share) for row_id, origin in by_id}


def side_of(caption: str, test_share: float) -> Side:
    """The side of a caption, from its hash: all edits and turns of a caption are on one side, in any run.

    For a picture without a caption, its digest takes the caption's place.
    """
    digest = hashlib.blake2b(caption.encode(errors="surrogatepass"), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") < test_share * 2**64 else "train"


def file_key(row_id: str) -> str:
    """A file name for a row: its id, or the hash of an id that is not a safe name (``../a``, ``a.b``)."""
    if _NAME.fullmatch(row_id):
        return row_id
    return hashlib.blake2b(row_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def picture(row_id: str, kind: str, data: bytes | None) -> dict[str, Any]:
    """A picture as ``datasets`` stores it, after its header was checked.

    Its ``path`` is made from the row id. A reader of a picture without bytes opens its path, so a path taken
    from the shard could make the reader open any file.

    Raises:
        UserError: the bytes are not a valid picture.
    """
    try:
        png_size(data)
    except ValueError as error:
        raise UserError(f"row {row_id}, {kind}: {error}; editpairs validate looks at all rows") from error
    return {"bytes": data, "path": f"{file_key(row_id)}-{kind}.png"}


def _named(table: pa.Table) -> pa.Table:
    """The table with its pictures checked and named after their rows."""
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
    """The writer of each format, by the name given to ``--to``."""
    from pipeline.exports import magicbrush, parquet, preference, tars

    return {
        "datasets": parquet.write,
        "webdataset": tars.write,
        "magicbrush": magicbrush.write,
        "preference": preference.write,
    }
