"""Opening a caption file: decompression, and the checks that all readers share."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.store.location import Location, is_local

BLOCK = 64 << 20
"""Block size of Arrow's readers, in bytes. A line must fit into one block."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@contextmanager
def opened(file: Location) -> Iterator[Any]:
    """Open a file; its name says how to decompress it."""
    compression = COMPRESSIONS.get(file.suffix.lower())
    source = str(file) if is_local(file) else file.open("rb")
    with pa.input_stream(source, compression=compression) as stream:
        yield stream


@contextmanager
def lines(file: Location) -> Iterator[Iterator[bytes]]:
    with opened(file) as stream:
        yield iter(io.BufferedReader(stream, 1 << 20))


def decoded(stream: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(stream, 1 << 20), encoding="utf-8-sig", newline="")


def check_encoding(file: Location) -> None:
    with opened(file) as stream:
        start = stream.read(4)
    encoding = json.detect_encoding(start)
    # Without a byte order mark, UTF-16 is guessed from zero bytes. A single one is a NUL within a caption.
    single = encoding.endswith(("-le", "-be")) and any(start[::2]) and any(start[1::2])
    if not encoding.startswith("utf-8") and not single:
        raise UserError(
            f"captions.file: {file} is {encoding.upper()}: save it as UTF-8, such as with "
            f"iconv -f {encoding} -t utf-8"
        )


def require(column: str, columns: list[str], file: Location, key: str = "captions.column") -> None:
    if column not in columns:
        raise UserError(
            f"{key}: {file} has no column {column!r}; it has {', '.join(map(repr, columns))[:500]}"
        )
    if columns.count(column) > 1:
        raise UserError(f"{key}: {file} has several columns {column!r}: give them names of their own")
