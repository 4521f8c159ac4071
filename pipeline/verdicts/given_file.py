"""Verdicts given in a file: ``editpairs review RUN --from FILE``.

Columns ``id``, ``candidate`` and ``verdict`` are needed. The others of ``verdicts.parquet`` can be left out;
a ``verdicts.parquet`` of another copy of the run has them all. Further columns are ignored.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.store.location import Location, named, reached
from pipeline.store.sealed import open_file
from pipeline.verdicts.verdict import SCHEMA, Verdict

MOST_BYTES = 256 << 20


def read_given(path: Location, who: str) -> list[Verdict]:
    """Read a file of verdicts.

    Args:
        path: a ``.csv``, ``.jsonl`` or ``.parquet`` file.
        who: the person where a line names none.

    Raises:
        UserError: the file cannot be read, or a line is wrong. The message names the line.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"--from {path}: the formats are {', '.join(READERS)}")
    try:
        with reached(path), named(path):
            if path.stat().st_size > MOST_BYTES:
                raise UserError(f"--from {path}: it has more than {MOST_BYTES >> 20} MB: split it")
            verdicts = [_verdict(path, where, record, who) for where, record in read(path)]
    except (OSError, pa.ArrowException, csv.Error, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"--from {path}: it cannot be read: {reason[:300]}") from error
    if not verdicts:
        raise UserError(f"--from {path}: it holds no verdicts")
    return verdicts


def _verdict(path: Location, where: str, record: Mapping[str, Any], who: str) -> Verdict:
    given = {name: record[name] for name in SCHEMA.names if record.get(name) not in (None, "")}
    try:
        return Verdict.model_validate({"who": who, **given})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        column = ".".join(map(str, first["loc"]))
        said = "" if first["type"] == "missing" else f", not {str(first['input'])[:80]!r}"
        raise UserError(f"--from {path}: {where}: {column}: {first['msg']}{said}") from error


def _read_csv(path: Location) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("r", encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file)
        for record in lines:
            yield f"line {lines.line_num}", record


def _read_jsonl(path: Location) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open("r", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"--from {path}: line {number} is not valid JSON") from error
            if not isinstance(record, dict):
                raise UserError(f"--from {path}: line {number} is not a JSON object")
            yield f"line {number}", record


def _read_parquet(path: Location) -> Iterator[tuple[str, Mapping[str, Any]]]:
    file = open_file(path)
    columns = [name for name in SCHEMA.names if name in file.schema_arrow.names]
    for number, record in enumerate(file.read(columns=columns).to_pylist()):
        yield f"row {number}", record


READERS: dict[str, Callable[[Location], Iterator[tuple[str, Mapping[str, Any]]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
