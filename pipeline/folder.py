"""The run directory: where everything of a run lies, and who may write there.

::

    runs/<name>/
      plan.parquet                      the rows; one row group a part
      <stage>/<part:05d>.parquet        what a stage wrote about a part
      shards/train-00000-of-00012.parquet
      manifest.lock.yaml                the resolved manifest, fingerprints, package versions
      events.jsonl                      one line a committed file: rows, seconds
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.storage import Location, held, is_local, locate


@dataclass
class Spent:
    """Rows that a stage has written (those written again count again), and what they took."""

    rows: int = 0
    wall_seconds: float = 0.0
    worker_seconds: float = 0.0


class RunFolder:
    """Paths of one run."""

    def __init__(self, root: str | os.PathLike | Location) -> None:
        self.root = locate(root)
        self.plan = self.root / "plan.parquet"
        self.lock = self.root / "manifest.lock.yaml"
        self.events = self.root / "events.jsonl"
        self.last_error = self.root / "last_error.txt"

    def part(self, stage: str, part: int) -> Location:
        return self.root / stage / f"{part:05d}.parquet"

    def shard(self, stage: str, shard: int, total: int) -> Location:
        return self.root / stage / f"train-{shard:05d}-of-{total:05d}.parquet"

    def record(self, **event: Any) -> None:
        """Append one line to ``events.jsonl``."""
        with self.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, sort_keys=True) + "\n")

    def read_events(self) -> Iterator[dict[str, Any]]:
        """The lines of ``events.jsonl``; one cut short by a crash is skipped."""
        if not self.events.exists():
            return
        with self.events.open(encoding="utf-8") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if isinstance(event, dict):
                    yield event

    def spent(self) -> dict[str, Spent]:
        """What each stage took, over all sessions of the run; 0 for one that has written nothing."""
        total: dict[str, Spent] = defaultdict(Spent)
        for event in self.read_events():
            if "unit" in event:
                stage = total[event["stage"]]
                stage.rows += event["rows"]
                stage.wall_seconds += event["wall"]
                stage.worker_seconds += event["seconds"]
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
