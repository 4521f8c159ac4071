"""Captions in JSON objects: one object per line, or one list of objects."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.json

from pipeline.errors import UserError
from pipeline.inputs.caption_formats.opened import BLOCK, check_encoding, lines, opened, require
from pipeline.store.location import Location

MOST_JSON = 256 << 20
"""Largest JSON list, in bytes. The whole list is parsed into Python objects."""


def read_jsonl(file: Location, column: str) -> pa.ChunkedArray:
    """Read a file with one JSON object per line."""
    check_encoding(file)
    with lines(file) as rows:
        first = next(rows, b"")
    if not first:
        return pa.chunked_array([], pa.large_string())
    if first.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
        raise UserError(
            f"captions.file: {file}: line 1 is not a JSON object; a file that is one list of objects is "
            "named .json"
        )
    require(column, list(_object(first, column, file, "line 1")), file)
    parse = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema([(column, pa.large_string())]), unexpected_field_behavior="ignore"
    )
    read = pyarrow.json.ReadOptions(block_size=BLOCK)
    try:
        with opened(file) as stream:
            captions = pyarrow.json.read_json(stream, read_options=read, parse_options=parse)[column]
        captions.validate(full=True)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        _check_objects(file, column)
        raise
    return captions


def read_json(file: Location, column: str) -> pa.ChunkedArray:
    """Read one JSON list of objects.

    Many files named .json hold one object per line; these are read as well.
    """
    check_encoding(file)
    with opened(file) as stream:
        content = stream.read(MOST_JSON + 1)
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return read_jsonl(file, column)
    if len(content) > MOST_JSON:
        raise UserError(
            f"captions.file: {file} is a list of more than {MOST_JSON >> 20} MB: write it as .jsonl, "
            "one object per line"
        )
    records = _parsed(content, column, file, "")
    captions: list[str | None] = []
    for number, record in enumerate(records, 1):
        if not captions and isinstance(record, dict):
            require(column, list(record), file)
        captions.append(_caption(record, column, file, f"record {number}"))
    return pa.chunked_array([pa.array(captions, pa.large_string())])


def _parsed(text: bytes, column: str, file: Location, where: str) -> Any:
    """Parse a JSON text. A duplicate key raises an error if captions are looked up under that key."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if [key for key, _ in pairs].count(column) > 1:
            raise ValueError(f"the key {column!r} occurs twice")
        return dict(pairs)

    what = f"captions.file: {file}: {where}" if where else f"captions.file: {file}"
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=once)
    except UnicodeDecodeError:
        raise UserError(f"{what} is not UTF-8: save the file as UTF-8") from None
    except RecursionError:
        raise UserError(f"{what} is nested too deeply") from None
    except ValueError as error:
        reason = str(error) if not where else str(error).partition(": line ")[0]
        raise UserError(f"{what} is not valid JSON: {reason}") from None


def _object(text: bytes, column: str, file: Location, where: str) -> dict[str, Any]:
    record = _parsed(text, column, file, where)
    if not isinstance(record, dict):
        raise UserError(f"captions.file: {file}: {where} is not a JSON object")
    return record


def _caption(record: Any, column: str, file: Location, where: str) -> str | None:
    """The caption in one JSON object."""
    if not isinstance(record, dict):
        raise UserError(f"captions.file: {file}: {where} is not a JSON object")
    caption = record.get(column)
    if caption is None:
        return None
    if not isinstance(caption, str):
        kind = {dict: "an object", list: "a list", bool: "a truth value"}.get(type(caption), "a number")
        raise UserError(f"captions.column: {column!r} in {file} holds {kind} in {where}, not text")
    try:
        caption.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"captions.file: {file}: {where} has half of a surrogate pair, which is not valid text"
        ) from None
    return caption


def _check_objects(file: Location, column: str) -> None:
    """Raise an error for the first line that is not a JSON object with a text under ``column``."""
    with lines(file) as rows:
        for number, line in enumerate(rows, 1):
            if line.strip():
                where = f"line {number}"
                _caption(_object(line, column, file, where), column, file, where)
