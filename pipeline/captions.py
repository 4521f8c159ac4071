"""The input: one column of captions from a parquet, jsonl, csv or txt file.

A caption is data. An empty one, a very long one or one with control characters is a row like any
other, for the instruct stage to judge; only a file that cannot be read stops a run.
"""

import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage import Location, arrow_source, is_local

_BLOCK = 64 << 20
"""Bytes Arrow's readers take at a time; no line may be longer."""


def read_captions(path: Location, column: str) -> pa.ChunkedArray:
    """The captions of a file in its order, as ``large_string``; null is the empty caption.

    Args:
        path: ``.parquet``, ``.jsonl``, ``.csv`` (with a header) or ``.txt`` (a caption a line).
        column: the caption column; not used for ``.txt``.

    Raises:
        UserError: the file or column is not there, or the file cannot be read.
    """
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv, ".txt": _read_text}
    _require_file(path)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"captions.file: {path} is not one of {', '.join(readers)}")
    try:
        captions = reader(path, column)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"captions.file: {path} cannot be read: {error}") from error
    if len(captions) == 0:
        raise UserError(f"captions.file: {path} holds no captions")
    return captions.cast(pa.large_string()).fill_null("")


def content_hash(path: Location) -> str:
    """blake2b of the file's bytes."""
    _require_file(path)
    content = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            content.update(chunk)
    return content.hexdigest()


def _read_parquet(path: Location, column: str) -> pa.ChunkedArray:
    schema = pq.read_schema(arrow_source(path))
    _require(column, schema.names, path)
    values = pq.read_table(arrow_source(path), columns=[column])[column]
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"captions.column: {column!r} in {path} holds {kind}, not text")
    return values


def _read_jsonl(path: Location, column: str) -> pa.ChunkedArray:
    with path.open("rb") as file:
        first = file.readline()
    try:
        keys = list(json.loads(first))
    except (ValueError, TypeError):
        raise UserError(f"captions.file: {path}: line 1 is not a JSON object") from None
    _require(column, keys, path)
    parse = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema([(column, pa.large_string())]), unexpected_field_behavior="ignore"
    )
    read = pyarrow.json.ReadOptions(block_size=_BLOCK)
    return pyarrow.json.read_json(arrow_source(path), read_options=read, parse_options=parse)[column]


def _read_csv(path: Location, column: str) -> pa.ChunkedArray:
    read = pyarrow.csv.ReadOptions(block_size=_BLOCK)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    with pyarrow.csv.open_csv(arrow_source(path), read_options=read, parse_options=parse) as stream:
        _require(column, stream.schema.names, path)
    convert = pyarrow.csv.ConvertOptions(
        include_columns=[column], column_types={column: pa.large_string()}, strings_can_be_null=False
    )
    return pyarrow.csv.read_csv(
        arrow_source(path), read_options=read, parse_options=parse, convert_options=convert
    )[column]


def _read_text(path: Location, column: str) -> pa.ChunkedArray:
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        content = content.decode("utf-8", errors="replace").encode()
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if content and not content.endswith(b"\n"):
        content += b"\n"
    # Only a line feed ends a line: str.splitlines would also cut at characters that captions may hold.
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    lines = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(content))
    return pa.chunked_array([pa.compute.utf8_rtrim(lines, "\n")])


def _require_file(path: Location) -> None:
    if not path.is_file():
        looked = f" (looked in {os.getcwd()})" if is_local(path) else ""
        raise UserError(f"captions.file: there is no file {path}{looked}")


def _require(column: str, columns: list[str], path: Location) -> None:
    if column not in columns:
        raise UserError(
            f"captions.column: {path} has no column {column!r}; it has {', '.join(map(repr, columns))}"
        )
