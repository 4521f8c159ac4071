"""The input rows of a stage: the rows its previous stage kept, joined by id with the columns it reads."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.location import Location
from pipeline.store.plan import read_part
from pipeline.store.sealed import read_table, read_tables


def read_rows(
    plan: Location,
    part: int,
    files: Mapping[str, Location],
    reads: Mapping[str, Sequence[str]],
    run: Mapping[str, str],
    ids: pa.Array,
    batch: int,
) -> Iterator[pa.Table]:
    """Yield tables of ``batch`` rows (the last one may be smaller): ``id`` and the columns in ``reads``.

    Files are read one batch at a time, so memory use does not grow with the part.

    Args:
        plan: the plan file.
        part: the part's number.
        files: by stage in ``reads``, the stage's file of this part.
        reads: columns by stage. ``plan`` stands for the plan, ``run`` for values common to all rows.
        run: the values of the ``run`` columns.
        ids: the rows to read, in plan order.
        batch: rows per table.
    """
    streams = []
    for stage, columns in reads.items():
        if stage == "run":
            continue
        if stage == "plan":
            table = read_part(plan, part, ["id", *columns])
            streams.append(_rebatch(iter([table]), ids, batch))
        else:
            streams.append(_rebatch(read_tables(files[stage], ["id", *columns], batch), ids, batch))
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
