"""Training examples from published pairs: each pair forwards, and backwards where that makes sense."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.exports import Side, side_of
from pipeline.store.location import Location, exists, locate
from pipeline.store.reading import open_parquet
from stages.pictures.png import decode_rgb
from stages.shards.card import PICTURE

_COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("I", PICTURE),
        ("T", pa.string()),
        ("Tar", PICTURE),
        ("TI", pa.int16()),
        ("T_inverse", pa.string()),
        ("TI_inverse", pa.int16()),
        ("input_caption", pa.string()),
        ("output_caption", pa.string()),
        ("session", pa.string()),
        ("turn", pa.int16()),
    ]
)


@dataclass(frozen=True)
class Example:
    """One edit of a pair. ``backwards``: from the target to the input."""

    instruction: str
    index: int
    """The task's index (TI)."""
    backwards: bool


@dataclass(frozen=True)
class PairRow:
    """A readable pair: pictures uint8 [H,W,3], its side of the split, and its examples."""

    id: str
    before: np.ndarray
    after: np.ndarray
    input_caption: str
    output_caption: str
    side: Side
    examples: Sequence[Example]
    turn: int = 1


@dataclass
class Reading:
    """The rows of all files, with a count of the rows that could not be used, by reason."""

    paths: Sequence[str]
    test_share: float
    inverse: bool = True
    indices: frozenset[int] | None = None
    """Only examples of these task indices; None: of all."""
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def files(self) -> list[Location]:
        """The parquet files, in order.

        Raises:
            UserError: a path does not exist, or holds no pairs.
        """
        return [file for path in self.paths for file in pair_files(path)]

    def rows(self, batch: int = 64) -> Iterator[PairRow]:
        """Read every row, one batch after another.

        Raises:
            UserError: a file is damaged, or a column is missing.
        """
        for caption, record in self._records(_COLUMNS, batch):
            row = self._row(record, caption)
            if row is not None:
                yield row

    def instructions(self) -> Iterator[tuple[Side, Example]]:
        """The side and the example of every instruction. No picture is read.

        Raises:
            UserError: as :meth:`rows`.
        """
        columns = pa.schema([field for field in _COLUMNS if field.type != PICTURE])
        for caption, record in self._records(columns, 1024):
            for example in self._examples(record):
                yield side_of(caption, self.test_share), example

    def _records(self, columns: pa.Schema, batch: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every record, with the caption that decides about its side."""
        for path in self.paths:
            captions: dict[str, str] = {}
            for file in pair_files(path):
                with open_parquet(file, columns) as opened:
                    for records in opened.iter_batches(batch_size=batch, columns=columns.names):
                        for record in records.to_pylist():
                            # A session's first caption decides about all of its turns. The first turn's
                            # files come first.
                            name, own = record["session"] or record["id"] or "", record["input_caption"] or ""
                            yield captions.setdefault(name, own), record

    def _row(self, record: Mapping[str, Any], caption: str) -> PairRow | None:
        examples = list(self._examples(record))
        if not examples:
            return None
        try:
            before, after = (decode_rgb((record[name] or {}).get("bytes")) for name in ("I", "Tar"))
        except ValueError:
            self.skipped["picture that cannot be read"] += 1
            return None
        if before.shape != after.shape:
            self.skipped["I and Tar of different sizes"] += 1
            return None
        return PairRow(
            record["id"] or "",
            before,
            after,
            record["input_caption"] or "",
            record["output_caption"] or "",
            side_of(caption, self.test_share),
            examples,
            record["turn"] or 1,
        )

    def _examples(self, record: Mapping[str, Any]) -> Iterator[Example]:
        for text, index, backwards in (("T", "TI", False), ("T_inverse", "TI_inverse", True)):
            if backwards and (not self.inverse or record[text] is None):
                continue
            if not (record[text] or "").strip() or record[index] is None:
                self.skipped["no instruction or task"] += 1
            elif self.indices is None or record[index] in self.indices:
                yield Example(record[text].strip(), record[index], backwards)


def pair_files(path: str) -> list[Location]:
    """The parquet files of a run, an export, a folder of shards, or one shard; earlier turns first.

    Raises:
        UserError: the path does not exist, or holds no pairs.
    """
    location = locate(path)
    if not exists(location):
        raise UserError(
            f"there are no pairs at {path}: name a run, an export, a folder of shards, or a shard"
        )
    if location.is_file():
        return [location]
    patterns = ("shards/train-*.parquet", "shards.*/train-*.parquet", "data/*.parquet", "*.parquet")
    for names in (patterns[:2], patterns[2:3], patterns[3:]):
        files: list[Location] = []
        for name in names:
            files += sorted(location.glob(name), key=str)
        files = [file for file in files if file.name != "plan.parquet"]  # a run without pairs has a plan
        if files:
            return files
    raise UserError(f"{path} holds no pairs yet: run editpairs generate first")
