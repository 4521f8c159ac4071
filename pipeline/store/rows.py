"""The input rows of a stage: the rows it is given, joined by id with the columns it reads."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.location import Location
from pipeline.store.plan import read_part
from pipeline.store.sealed import read_table, read_tables

Later = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""By stage: some of its columns, and the later stages that wrote these columns again, in order."""


def read_rows(
    plan: Location,
    part: int,
    files: Mapping[str, Location],
    reads: Mapping[str, Sequence[str]],
    run: Mapping[str, str],
    ids: pa.Array,
    batch: int,
    later: Later | None = None,
) -> Iterator[pa.Table]:
    """Yield tables of ``batch`` rows (the last one may be smaller): ``id`` and the columns in ``reads``.

    Files are read one batch at a time, so memory use does not grow with the part.

    Args:
        plan: the plan file.
        part: the part's number.
        files: by stage in ``reads`` and ``later``, the stage's file of this part.
        reads: columns by stage. ``plan`` stands for the plan, ``run`` for values common to all rows.
        run: the values of the ``run`` columns.
        ids: the rows to read, in plan order.
        batch: rows per table.
        later: columns that later stages wrote again for some rows. The last stage that has the row counts.
    """

    def read(stage: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        if stage == "plan":
            return iter([read_part(plan, part, ["id", *columns])])
        return read_tables(files[stage], ["id", *columns], batch)

    streams = []
    for stage, columns in reads.items():
        if stage == "run":
            continue
        rewritten, stages = (later or {}).get(stage, ((), ()))
        once = [name for name in columns if name not in rewritten]
        several = [name for name in columns if name in rewritten]
        if once or not several:
            streams.append(_rebatch(read(stage, once), ids, batch))
        if several:
            named = {name: read_table(files[name], ["id"])["id"].combine_chunks() for name in stages}
            versions = [read(name, several) for name in (stage, *named)]
            streams.append(_latest(versions, list(named.values()), ids, batch))
    if not streams:
        streams.append(_rebatch(iter([pa.table({"id": ids})]), ids, batch))
    for tables in zip(*streams, strict=True):
        joined = tables[0]
        for table in tables[1:]:
            if not table["id"].equals(joined["id"]):
                raise RuntimeError(f"part {part}: files of one part hold their rows in different order")
            for name in table.column_names[1:]:
                joined = joined.append_column(table.schema.field(name), table[name])
        for name in reads.get("run", ()):
            joined = joined.append_column(name, pa.array([run[name]] * joined.num_rows, pa.string()))
        yield joined


def kept_ids(path: Location) -> pa.Array:
    """The ids of a part's kept rows, in order."""
    return ids_with_status(path, "kept")


def ids_with_status(path: Location, status: str) -> pa.Array:
    table = read_table(path, ["id", "status"])
    return table.filter(pc.equal(table["status"], status))["id"].combine_chunks()


def _latest(
    versions: Sequence[Iterator[pa.Table]], rewritten: Sequence[pa.Array], ids: pa.Array, batch: int
) -> Iterator[pa.Table]:
    """Tables of ``batch`` rows, each row from the last version that has it.

    Args:
        versions: the tables of each version; the first has all rows.
        rewritten: the ids in each version after the first.
        ids, batch: as for :func:`read_rows`.
    """
    version = np.zeros(len(ids), np.int64)
    for number, those in enumerate(rewritten, 1):
        version[np.asarray(pc.is_in(ids, those))] = number
    streams = [
        _Stream(tables, ids.filter(pa.array(version == number))) for number, tables in enumerate(versions)
    ]
    for start in range(0, len(ids), batch):
        here = version[start : start + batch]
        taken = [stream.take(int((here == number).sum())) for number, stream in enumerate(streams)]
        joined = pa.concat_tables([table.cast(taken[0].schema) for table in taken])
        order = np.argsort(here, kind="stable")  # joined row i is row order[i] of the batch
        yield joined.take(pa.array(np.argsort(order)))


class _Stream:
    """The rows of some ids in a stream of tables, in its order."""

    def __init__(self, tables: Iterator[pa.Table], ids: pa.Array) -> None:
        self._tables = (table.filter(pc.is_in(table["id"], ids)) for table in tables)
        self._left = next(self._tables)

    def take(self, rows: int) -> pa.Table:
        """The next ``rows`` rows."""
        waiting = [self._left]
        while sum(table.num_rows for table in waiting) < rows:
            waiting.append(next(self._tables))
        joined = pa.concat_tables(waiting)
        self._left = joined.slice(rows)
        return joined.slice(0, rows)


def _rebatch(tables: Iterator[pa.Table], ids: pa.Array, batch: int) -> Iterator[pa.Table]:
    """Select rows from a stream of tables and cut it into tables of ``batch`` rows."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        table = table.filter(pc.is_in(table["id"], ids))
        waiting.append(table)
        rows += table.num_rows
        while rows >= batch:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, batch)
            waiting, rows = [joined.slice(batch)], rows - batch
    if rows:
        yield pa.concat_tables(waiting)
