"""The run directory: where everything of a run lies, and who may write there.

::

    runs/<name>/
      plan.parquet                      the rows; one row group a part
      <stage>/<part:05d>.parquet        what a stage wrote about a part
      shards/train-00000-of-00012.parquet
      README.md, SHA256SUMS             the card and the checksums of what is published
      manifest.lock.yaml                the resolved manifest, its tasks, fingerprints, package versions
      events.jsonl                      one line a committed file: rows, seconds of wall, CPU, GPU
      footers.parquet                   of a large run, its footers; may be deleted
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.errors import UserError
from pipeline.store.location import Location, list_folder, locate
from pipeline.store.lock import Check, held
from pipeline.store.new_file import remove_temporaries


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

    def has_parts(self) -> bool:
        """Whether any stage's folder holds a parquet file."""
        return any(
            name.endswith(".parquet")
            for stage, is_folder in list_folder(self.root).items()
            if is_folder
            for name in list_folder(self.root / stage)
        )

    @contextmanager
    def owned(self) -> Iterator[Check]:
        """Hold the run for this process; what is yielded checks that it still does.

        Raises:
            UserError: another process holds it.
        """
        with held(self.root) as check:
            remove_temporaries(self.root)
            try:
                yield check
            finally:
                with suppress(UserError, OSError):  # another's unfinished files are none of ours
                    check()
                    remove_temporaries(self.root)
