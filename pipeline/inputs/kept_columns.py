"""Other columns of the caption files, such as url and licence, that travel to the published rows.

They are data of strangers: each row's values become one JSON object, and nothing reads them.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.caption_formats import (
    format_of,
    parquet_records,
    read_json,
    read_jsonl,
    read_parquet,
    read_text,
)
from pipeline.inputs.caption_formats.opened import lines, opened, require
from pipeline.inputs.captions import caption_files, named
from pipeline.store.location import Location

LONGEST = 10_000
"""Most characters of a row's JSON."""


def read_kept(path: Location, columns: Sequence[str]) -> pa.ChunkedArray:
    """The values of ``columns`` as JSON objects, ``large_string``, in the order of the captions.

    Args:
        path: as for :func:`pipeline.inputs.captions.read_captions`, which has checked the files.
        columns: names of columns; a row of a JSON file without one has null there.

    Raises:
        UserError: a file has no such column, or a row's values are too long.
    """
    chunks = []
    for file in caption_files(path):
        with named(file):
            chunks.append(pa.array(_texts(file, columns), pa.large_string()))
    return pa.chunked_array(chunks, pa.large_string())


def _texts(file: Location, columns: Sequence[str]) -> Iterator[str]:
    for number, record in enumerate(_records(file, columns), 1):
        text = json.dumps(record, ensure_ascii=False, default=str)
        if len(text) > LONGEST:
            raise UserError(
                f"captions.keep: {file}: row {number} has {len(text)} characters in these columns, more "
                f"than {LONGEST}: keep fewer columns"
            )
        yield text.encode(errors="replace").decode()


def _records(file: Location, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    read = format_of(file)
    if read is read_parquet:
        for record in parquet_records(file, columns):
            yield {name: record[name] for name in columns}
    elif read in (read_json, read_jsonl):
        seen: set[str] = set()
        for record in _objects(file):
            seen |= record.keys()
            yield {name: record.get(name) for name in columns}
        for name in columns:
            require(name, sorted(seen), file, "captions.keep")
    elif read is None or read is read_text:
        raise UserError(f"captions.keep: {file} has no columns: take the key out")
    else:
        for values in zip(*(read(file, name).to_pylist() for name in columns), strict=True):
            yield dict(zip(columns, values, strict=True))


def _objects(file: Location) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, or of one list."""
    with opened(file) as stream:
        first = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if first.startswith(b"["):
        with opened(file) as stream:
            yield from json.loads(stream.read().decode("utf-8-sig"))
        return
    with lines(file) as rows:
        for line in rows:
            if line.strip():
                yield json.loads(line.decode("utf-8-sig"))
