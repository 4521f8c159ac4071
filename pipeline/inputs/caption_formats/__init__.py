"""Readers of caption files, one per format.

A reader returns one column, or an error that names the wrong line.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.inputs.caption_formats.opened import COMPRESSIONS, check_encoding, opened, require
from pipeline.inputs.caption_formats.records import read_json, read_jsonl
from pipeline.inputs.caption_formats.separated import read_csv
from pipeline.store.location import Location, arrow_source

Reader = Callable[[Location, str], pa.ChunkedArray]


def format_of(file: Location) -> Reader | None:
    """The reader for a file, chosen by the file's name; None for an unknown format."""
    name = PurePosixPath(file.name.lower())
    if name.suffix in COMPRESSIONS:
        name = name.with_suffix("")
        return FORMATS.get(name.suffix) if name.suffix != ".parquet" else None
    return FORMATS.get(name.suffix)


def read_parquet(file: Location, column: str) -> pa.ChunkedArray:
    schema = pq.read_schema(arrow_source(file))
    require(column, schema.names, file)
    kind = schema.field(column).type
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_text(text) for is_text in (pa.types.is_string, pa.types.is_large_string, _is_view)):
        raise UserError(f"captions.column: {column!r} in {file} holds {kind}, not text")
    return pq.read_table(arrow_source(file), columns=[column])[column]


def parquet_records(file: Location, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, with some columns of any type."""
    for name in columns:
        require(name, pq.read_schema(arrow_source(file)).names, file, "captions.keep")
    for batch in pq.ParquetFile(arrow_source(file)).iter_batches(columns=list(columns)):
        yield from batch.to_pylist()


def read_text(file: Location, column: str) -> pa.ChunkedArray:
    """Read one caption per line; a line ends with LF, CRLF or CR. Bytes that are not UTF-8 become U+FFFD."""
    check_encoding(file)
    with opened(file) as stream:
        content = stream.read()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        content = content.decode("utf-8", errors="replace").encode()
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if content and not content.endswith(b"\n"):
        content += b"\n"
    # str.splitlines would also split at other characters inside a caption.
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    lines = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(content))
    return pa.chunked_array([pc.utf8_rtrim(lines, "\n")])


FORMATS: dict[str, Reader] = {
    ".parquet": read_parquet,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".txt": read_text,
}
"""Reader by file suffix. Text formats may also be compressed: ``.csv.gz``."""


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind))
