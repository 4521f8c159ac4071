"""Reading parquet files that may be damaged or come from another program. Each problem is one message."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.store.location import Location, arrow_source

MOST_EXPANDED = 200
"""Most bytes that one byte of a file may expand to.

Pictures are already compressed, so the ratio stays low.
"""
SLACK = 1 << 24
"""Bytes that a file may expand to regardless of its size."""


@contextmanager
def reading(path: Location) -> Iterator[None]:
    """Turn read errors into a UserError that names the file.

    Raises:
        UserError: the content cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}; editpairs validate says what is damaged") from error


@contextmanager
def open_parquet(path: Location, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Open a file and check that it has the columns of ``schema`` and a plausible number of rows and bytes.

    Raises:
        UserError: a check fails, or reading fails, here or inside the block.
    """
    with reading(path), pq.ParquetFile(arrow_source(path)) as file:
        there = file.schema_arrow
        for column in schema:
            if column.name not in there.names:
                raise UserError(f"{path} has no column {column.name}: it is not a shard of editpairs")
            if (found := there.field(column.name).type) != column.type:
                raise UserError(f"{path}: column {column.name} is {found}, not {column.type}")
        size, metadata = path.stat().st_size, file.metadata
        groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
        expanded = sum(group.total_byte_size for group in groups)
        rows = max(metadata.num_rows, *(group.num_rows for group in groups), 0)
        if rows > size or expanded > MOST_EXPANDED * size + SLACK:
            raise UserError(f"{path} is damaged: {size} bytes claim to be {rows} rows of {expanded} bytes")
        yield file
