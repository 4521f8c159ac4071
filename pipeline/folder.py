"""The run directory: where everything of a run lies, and who may write there.

::

    runs/<name>/
      plan.parquet                      the rows; one row group a part
      <stage>/<part:05d>.parquet        what a stage wrote about a part
      shards/train-00000-of-00012.parquet
      manifest.lock.yaml                the resolved manifest, fingerprints, package versions
      events.jsonl                      one line a committed file: rows, seconds
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


class RunFolder:
    """Paths of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / "plan.parquet"
        self.lock = root / "manifest.lock.yaml"
        self.events = root / "events.jsonl"
        self.last_error = root / "last_error.txt"

    def part(self, stage: str, part: int) -> Path:
        return self.root / stage / f"{part:05d}.parquet"

    def shard(self, stage: str, shard: int, total: int) -> Path:
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

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            UserError: another process holds it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise UserError(
                    f"{self.root} is being written by process {holder}: wait for it, stop it, or use "
                    "another run name (--set name=...)"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            self._remove_leftovers()
            try:
                yield
            finally:
                self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """What processes that were killed could not remove."""
        for leftover in self.root.glob("**/*.tmp"):
            leftover.unlink(missing_ok=True)
