"""The run directory: where everything of a run lies, and who may write there.

::

    runs/<name>/
      plan.parquet                      the rows; one row group a part
      <stage>/<part:05d>.parquet        what a stage wrote about a part
      shards/train-00000-of-00012.parquet
      manifest.lock.yaml                the resolved manifest, fingerprints, package versions
      events.jsonl                      one line a committed file: rows, seconds of wall, CPU, GPU
      footers.parquet                   of a large run, its footers; may be deleted
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from pipeline.storage import Location, held, is_local, locate


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
"""What an event tells of a committed file, in the order of ``Spent``. Earlier versions wrote no
``cpu_seconds`` and ``gpu_seconds``."""


def part_name(part: int) -> str:
    return f"{part:05d}.parquet"


def shard_name(shard: int, total: int) -> str:
    return f"train-{shard:05d}-of-{total:05d}.parquet"


class RunFolder:
    """Paths of one run."""

    def __init__(self, root: str | os.PathLike | Location) -> None:
        self.root = locate(root)
        self.plan = self.root / "plan.parquet"
        self.lock = self.root / "manifest.lock.yaml"
        self.events = self.root / "events.jsonl"
        self.footers = self.root / "footers.parquet"
        self.last_error = self.root / "last_error.txt"

    def part(self, stage: str, part: int) -> Location:
        return self.root / stage / part_name(part)

    def record(self, **event: Any) -> None:
        """Append one line to ``events.jsonl``."""
        with self.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, sort_keys=True) + "\n")

    def read_events(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """The lines of ``events.jsonl`` from byte ``start`` on, and where each ends.

        One cut short by a crash is skipped.
        """
        if not self.events.exists():
            return
        with self.events.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                if (event := _event_of(line)) is not None:
                    yield start, event

    def spent(self) -> dict[str, Spent]:
        """What each stage took, over all sessions of the run; 0 for one that has written nothing."""
        total: dict[str, Spent] = defaultdict(Spent)
        if self.events.exists():
            events = _read_units(self.events.read_bytes())
            stages = events["stage"].combine_chunks().dictionary_encode()
            sums = [_sums(stages, events[key].combine_chunks()).tolist() for key in _TOLD]
            for stage, rows, *seconds in zip(stages.dictionary.to_pylist(), *sums, strict=True):
                total[stage] = Spent(int(rows), *seconds)
        return total

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            UserError: another process holds it.
        """
        with held(self.root):
            self._remove_leftovers()
            try:
                yield
            finally:
                self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """What processes that were killed could not remove; an object store has no unfinished files."""
        if is_local(self.root):
            for leftover in self.root.glob("**/*.tmp"):
                leftover.unlink(missing_ok=True)


def _read_units(events: bytes) -> pa.Table:
    """The events of committed files, by a reader for millions of lines. A line cut short is skipped."""
    numbers = [pa.field(key, pa.int64() if key == "rows" else pa.float64()) for key in _TOLD]
    schema = pa.schema([("stage", pa.string()), ("unit", pa.int64()), *numbers])
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        table = pj.read_json(pa.BufferReader(events), parse_options=options)
    except pa.ArrowInvalid:
        whole = [line for line in events.splitlines() if _event_of(line)]
        if not whole:
            return schema.empty_table()
        table = pj.read_json(pa.BufferReader(b"\n".join(whole)), parse_options=options)
    return table.filter(table["unit"].is_valid())


def _sums(groups: pa.DictionaryArray, values: pa.Array) -> np.ndarray:
    """The sum of each group's values, nulls left out. Not by Arrow's ``group_by``, which imports pandas."""
    there = values.is_valid()
    numbers, known = (np.from_dlpack(array.filter(there)) for array in (groups.indices, values))
    return np.bincount(numbers, known, minlength=len(groups.dictionary))


def _event_of(line: bytes) -> dict[str, Any] | None:
    """None for a line cut short."""
    try:
        event = json.loads(line.decode())
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
