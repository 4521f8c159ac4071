"""Reading shards that may be damaged or come from another program. Each problem is one message."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.store.location import Location
from pipeline.store.sealed import DamagedFileError, opened

MOST_EXPANDED = 200
"""Most bytes that one byte of a file may expand to.

Pictures are already compressed, so the ratio stays low.
"""
SLACK = 1 << 24
"""Bytes that a file may expand to regardless of its size."""
_HINT = "editpairs validate says what is damaged"


@contextmanager
def open_parquet(path: Location, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Open a file and check that it has the columns of ``schema`` and a plausible number of rows and bytes.

    Raises:
        OSError: the system cannot read the file.
        UserError: a check fails, or the file is damaged where it is read, here or inside the block.
    """
    try:
        with opened(path) as file:
            _check_columns(path, file, schema)
            _check_size(path, file)
            yield file
    except DamagedFileError as error:
        raise UserError(f"{path} cannot be read: {error.why}; {_HINT}") from error
    except pa.ArrowMemoryError as error:
        raise UserError(f"{path} cannot be read: {error}; {_HINT}") from error


def _check_columns(path: Location, file: pq.ParquetFile, schema: pa.Schema) -> None:
    there = file.schema_arrow
    for column in schema:
        if column.name not in there.names:
            raise UserError(f"{path} has no column {column.name}: it is no shard of editpairs")
        if (found := there.field(column.name).type) != column.type:
            raise UserError(f"{path}: column {column.name} is {found}, not {column.type}")


def _check_size(path: Location, file: pq.ParquetFile) -> None:
    size, metadata = path.stat().st_size, file.metadata
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    expanded = sum(group.total_byte_size for group in groups)
    rows = max(metadata.num_rows, *(group.num_rows for group in groups), 0)
    if rows > size or expanded > MOST_EXPANDED * size + SLACK:
        raise UserError(f"{path} is damaged: {size} bytes claim to be {rows} rows of {expanded} bytes")
