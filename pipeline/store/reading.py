"""Shards as they are found: damaged, of others, or of another kind. Each is one message then."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.store.location import Location
from pipeline.store.sealed import DamagedFileError, opened

MOST_EXPANDED = 200
"""Bytes that a byte of a file may claim to become. Pictures are compressed already."""
SLACK = 1 << 24
"""Bytes that a file of any size may claim to become."""
_HINT = "editpairs validate says what is damaged"


@contextmanager
def open_parquet(path: Location, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A file that has the columns of ``schema``, and no more rows and bytes than its size can hold.

    Raises:
        OSError: the system cannot read it.
        UserError: it has not, or it is damaged where it is read, here or in the block.
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
