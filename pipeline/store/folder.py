"""The run folder: the paths of a run's files, and the lock that admits one writer.

::

    runs/<name>/
      plan.parquet                      the planned rows; one row group per part
      <stage>/<part:05d>.parquet        the rows of one part, written by one stage
      shards/train-00000-of-00012.parquet
      README.md, SHA256SUMS             the dataset card and the checksums of the published files
      manifest.lock.yaml                the resolved manifest, its tasks, fingerprints, package versions
      events.jsonl                      one line per committed file: rows, wall, CPU and GPU seconds
      audit.json                        what editpairs audit has found, if it was given
      answers/<stage>/<part:05d>.jsonl  replies of a model that were paid for; may be deleted
      footers.parquet                   a large run's footers, cached; may be deleted
      verdicts.parquet                  verdicts of people about candidates (editpairs review)
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
    """The paths of one run."""

    def __init__(self, root: str | os.PathLike[str] | Location) -> None:
        self.root = locate(root)
        self.plan = self.root / "plan.parquet"
        self.lock = self.root / "manifest.lock.yaml"
        self.events = self.root / "events.jsonl"
        self.footers = self.root / "footers.parquet"
        self.audit = self.root / "audit.json"
        self.last_error = self.root / "last_error.txt"
        self.verdicts = self.root / "verdicts.parquet"

    def part(self, stage: str, part: int) -> Location:
        return self.root / stage / part_name(part)

    def answers(self, step: str, part: int) -> Location:
        return self.root / "answers" / step / f"{part:05d}.jsonl"

    def has_parts(self) -> bool:
        """Whether any stage folder holds a parquet file."""
        return any(
            name.endswith(".parquet")
            for stage, is_folder in list_folder(self.root).items()
            if is_folder
            for name in list_folder(self.root / stage)
        )

    @contextmanager
    def owned(self) -> Iterator[Check]:
        """Lock the run for this process. The yielded function checks that the lock is still held.

        Raises:
            UserError: another process holds the lock.
        """
        with held(self.root) as check:
            remove_temporaries(self.root)
            try:
                yield check
            finally:
                # Without the lock, temporary files belong to another process.
                with suppress(UserError, OSError):
                    check()
                    remove_temporaries(self.root)
