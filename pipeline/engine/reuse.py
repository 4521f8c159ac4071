"""Records that are taken over when a file of a later round is made again.

Which rows a later round draws depends on the filter. So a change of a bound makes all files of later rounds
stale, although most of their rows stay as they are. Such a file has a column ``MADE_FROM``: a hash of what a
row's record was made from. When the file is made again with the same settings, a row whose hash is unchanged
keeps its record, and only the other rows run.
"""

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress

import pyarrow as pa

from pipeline.engine.guarded import Guarded
from pipeline.engine.streaming import Made
from pipeline.manifest.steps import Step
from pipeline.store.location import Location
from pipeline.store.sealed import DamagedFileError, Place, check_digest, opened
from stages.base import Answers

MADE_FROM = pa.field("made_from", pa.binary(16))


def remembers(step: Step) -> bool:
    """Whether the files of a step have the column ``MADE_FROM``."""
    return step.round > 1 and not step.light


def hashes_of(rows: pa.Table) -> list[bytes]:
    """A hash of each row: blake2b of its columns, in the order of their names."""
    names = sorted(rows.column_names)
    texts = (repr([row[name] for name in names]) for row in rows.to_pylist())
    return [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]


def marked(records: pa.Table, rows: pa.Table) -> pa.Table:
    """The records of some rows, with ``MADE_FROM``."""
    return records.append_column(MADE_FROM, pa.array(hashes_of(rows), MADE_FROM.type))


class Records:
    """The records of the file that is about to be replaced, by id and hash."""

    def __init__(self, path: Location, place: Place) -> None:
        self._path = path
        self._found: dict[tuple[str, bytes], tuple[int, int]] = {}
        """Row group and row in it."""
        self._group: tuple[int, pa.Table] = (-1, pa.table({}))
        with suppress(FileNotFoundError, DamagedFileError):
            check_digest(path, place)
            with opened(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["id", MADE_FROM.name])
                    pairs = zip(*(table[name].to_pylist() for name in ("id", MADE_FROM.name)), strict=True)
                    self._found |= {key: (group, row) for row, key in enumerate(pairs)}

    def find(self, row_id: str, hashed: bytes) -> pa.Table | None:
        """The record of a row, of one row; None if it has none, or was made from something else."""
        group, row = self._found.get((row_id, hashed), (-1, 0))
        if group < 0:
            return None
        if self._group[0] != group:
            with opened(self._path) as file:
                self._group = group, file.read_row_group(group).replace_schema_metadata()
        return self._group[1].slice(row, 1)


class Reusing:
    """A loaded stage of a later round. It runs only the rows that have no record yet."""

    def __init__(self, guarded: Guarded, records: Records | None) -> None:
        self._guarded, self._records = guarded, records

    def use(self, answers: Answers) -> None:
        self._guarded.use(answers)

    def __call__(self, rows: pa.Table) -> Made:
        """As :class:`pipeline.engine.guarded.Guarded`; the records have ``MADE_FROM``."""
        found, new = self._found(rows)
        return self._joined(found, new, self._guarded(new) if new.num_rows else None)

    def stream(self, batches: Iterator[pa.Table]) -> Generator[Made, None, None]:
        """As :meth:`pipeline.engine.guarded.Guarded.stream`."""
        waiting: deque[tuple[list[pa.Table | None], pa.Table]] = deque()

        def new_rows() -> Iterator[pa.Table]:
            for rows in batches:
                waiting.append(self._found(rows))
                if waiting[-1][1].num_rows:
                    yield waiting[-1][1]

        for made in self._guarded.stream(new_rows()):
            while not waiting[0][1].num_rows:
                yield self._joined(*waiting.popleft(), None)
            yield self._joined(*waiting.popleft(), made)
        while waiting:
            yield self._joined(*waiting.popleft(), None)

    def _found(self, rows: pa.Table) -> tuple[list[pa.Table | None], pa.Table]:
        """The record of each row, if it has one, and the rows without."""
        found: list[pa.Table | None] = [None] * rows.num_rows
        if self._records is not None:
            pairs = zip(rows["id"].to_pylist(), hashes_of(rows), strict=True)
            found = [self._records.find(*pair) for pair in pairs]
        return found, rows.filter(pa.array([record is None for record in found]))

    def _joined(self, found: list[pa.Table | None], new: pa.Table, made: Made | None) -> Made:
        if made is None:
            return pa.concat_tables([record for record in found if record is not None]), []
        records, errors = marked(made[0], new), made[1]
        each = iter(range(records.num_rows))
        joined = [records.slice(next(each), 1) if record is None else record for record in found]
        return pa.concat_tables(joined), errors
