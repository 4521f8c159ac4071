"""The bytes of a file of captions, as its reader wants them, and what all readers ask of it."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.store.location import Location, is_local

BLOCK = 64 << 20
"""Bytes Arrow's readers take at a time; no line may be longer."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@contextmanager
def opened(file: Location) -> Iterator[Any]:
    """The bytes of a file, decompressed by its name."""
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
        encoding = json.detect_encoding(stream.read(4))
    if not encoding.startswith("utf-8"):
        raise UserError(
            f"captions.file: {file} is {encoding.upper()}: save it as UTF-8, such as with "
            f"iconv -f {encoding} -t utf-8"
        )


def require(column: str, columns: list[str], file: Location) -> None:
    if column not in columns:
        raise UserError(
            f"captions.column: {file} has no column {column!r}; it has {', '.join(map(repr, columns))[:500]}"
        )
    if columns.count(column) > 1:
        raise UserError(
            f"captions.column: {file} has several columns {column!r}: give them names of their own"
        )
