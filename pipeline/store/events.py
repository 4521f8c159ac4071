"""``events.jsonl``: one line a committed file, with what it took; for cost and pace alone.

No file is believed or made again because of an event. Each line ends with its own checksum, so one that
was cut short or changed is left out, and ``validate`` names it.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from pipeline.store.location import Location, is_local, named

_CHECK = b', "check": "'


@dataclass
class Spent:
    """Rows that a stage has written (those written again count again), and what they took."""

    rows: int = 0
    wall_seconds: float = 0.0
    worker_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    """The workers' seconds times the GPUs that each of them had."""

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Spent)))


_TOLD = ("rows", "wall", "seconds", "cpu_seconds", "gpu_seconds")
"""What an event tells of a committed file, in the order of ``Spent``."""
_SCHEMA = pa.schema(
    [
        pa.field("stage", pa.string()),
        pa.field("unit", pa.int64()),
        *(pa.field(key, pa.int64() if key == "rows" else pa.float64()) for key in _TOLD),
    ]
)


def append(path: Location, **event: Any) -> None:
    """Add one line, with the time; after one that a crash cut short, on a line of its own."""
    event["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    line = sealed_line(event)
    with named(path), path.open("ab") as file:
        if is_local(path) and file.tell() and not _ends_with_newline(path):
            line = b"\n" + line  # an object is never cut short
        file.write(line)


def sealed_line(event: dict[str, Any]) -> bytes:
    """An event as a line of JSON whose last key is the checksum of what is before it."""
    body = json.dumps(event, sort_keys=True).encode()[:-1]
    return body + _CHECK + f'{zlib.crc32(body):08x}"}}\n'.encode()


def read(path: Location, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines from byte ``start`` on, and where each ends; none where there is no file.

    A last line that is still being written is not passed.
    """
    for end, line, whole in _lines(path, start):
        if whole:
            yield end, json.loads(line)


def count_damaged(path: Location) -> int:
    """How many lines are not what was written."""
    return sum(not whole for *_, whole in _lines(path, 0))


def spent(path: Location) -> dict[str, Spent]:
    """What each stage took, over all sessions of the run; 0 for one that has written nothing."""
    total: dict[str, Spent] = defaultdict(Spent)
    lines = b"".join(line for _, line, whole in _lines(path, 0) if whole)
    if not lines:
        return total
    options = pj.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
    events = pj.read_json(pa.BufferReader(lines), parse_options=options)  # made for millions of lines
    events = events.filter(events["unit"].is_valid())
    stages = events["stage"].combine_chunks().dictionary_encode()
    sums = [_sums(stages, events[key].combine_chunks()).tolist() for key in _TOLD]
    for stage, rows, *seconds in zip(stages.dictionary.to_pylist(), *sums, strict=True):
        total[stage] = Spent(int(rows), *seconds)
    return total


def _lines(path: Location, start: int) -> Iterator[tuple[int, bytes, bool]]:
    """Where each line ends, the line, and whether it is as it was written."""
    try:
        with named(path), path.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                yield start, line, _is_whole(line)
    except FileNotFoundError:
        return


def _is_whole(line: bytes) -> bool:
    body, _, check = line.rpartition(_CHECK)
    return check == f'{zlib.crc32(body):08x}"}}\n'.encode()


def _ends_with_newline(path: Location) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _sums(groups: pa.DictionaryArray, values: pa.Array) -> np.ndarray:
    """The sum of each group's values, nulls left out. Not by Arrow's ``group_by``, which imports pandas."""
    there = values.is_valid()
    numbers, known = (np.from_dlpack(array.filter(there)) for array in (groups.indices, values))
    return np.bincount(numbers, known, minlength=len(groups.dictionary))
