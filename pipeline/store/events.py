"""``events.jsonl``: one line per committed file with its cost in seconds. Only cost and pace read it.

No event decides whether a file is trusted or made again. A line that was cut short or changed is skipped, and
``validate`` reports it.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from pipeline.store.location import Location
from pipeline.store.sealed_lines import append_lines, sealed_line, sealed_lines


@dataclass
class Spent:
    """Rows that a stage has written and the time they took. A row that was written twice counts twice."""

    rows: int = 0
    wall_seconds: float = 0.0
    worker_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    """Worker seconds times the number of GPUs per worker."""
    prompt_tokens: int = 0
    """Tokens of a model that counts them, also for answers that were not usable."""
    answer_tokens: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Spent)))


_TOLD = ("rows", "wall", "seconds", "cpu_seconds", "gpu_seconds", "prompt_tokens", "answer_tokens")
"""Keys of an event, in the order of the fields of ``Spent``."""
_SCHEMA = pa.schema(
    [
        pa.field("stage", pa.string()),
        pa.field("unit", pa.int64()),
        *(pa.field(key, pa.float64() if "wall" in key or "seconds" in key else pa.int64()) for key in _TOLD),
    ]
)


def append(path: Location, **event: Any) -> None:
    """Append one line with the current time."""
    event["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    append_lines(path, sealed_line(event))


def read(path: Location, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each whole line from byte ``start`` on, with its end offset; nothing if the file is missing.

    An unfinished last line is not yielded.
    """
    for end, line, whole in sealed_lines(path, start):
        if whole:
            yield end, json.loads(line)


def count_damaged(path: Location) -> int:
    """The number of lines that do not match their checksum."""
    return sum(not whole for *_, whole in sealed_lines(path, 0))


def spent(path: Location) -> dict[str, Spent]:
    """The rows and time of each stage, summed over all sessions; zero for a stage without events."""
    total: dict[str, Spent] = defaultdict(Spent)
    lines = b"".join(line for _, line, whole in sealed_lines(path, 0) if whole)
    if not lines:
        return total
    options = pj.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
    # Arrow: there may be millions of lines.
    events = pj.read_json(pa.BufferReader(lines), parse_options=options)
    events = events.filter(events["unit"].is_valid())
    stages = events["stage"].combine_chunks().dictionary_encode()
    sums = [_sums(stages, events[key].combine_chunks()).tolist() for key in _TOLD]
    for stage, *told in zip(stages.dictionary.to_pylist(), *sums, strict=True):
        rows, wall, worker, cpu, gpu, prompt, answer = told
        total[stage] = Spent(int(rows), wall, worker, cpu, gpu, int(prompt), int(answer))
    return total


def _sums(groups: pa.DictionaryArray, values: pa.Array) -> np.ndarray:
    """The sum of each group's values; nulls count as 0.

    Arrow's ``group_by`` is avoided: it imports pandas.
    """
    there = values.is_valid()
    numbers, known = (np.from_dlpack(array.filter(there)) for array in (groups.indices, values))
    return np.bincount(numbers, known, minlength=len(groups.dictionary))
