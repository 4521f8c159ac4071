"""Parquet files that record their place, with a checksum over every byte.

In the footer, ``digest`` covers all bytes before the footer and ``seal`` covers the footer itself. The seal
lets a reader trust the footer without reading the rest. Each page has its own checksum, so a reader can trust
the pages it reads without reading the whole file. The content does not depend on the clock or the machine.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.store.location import Location, arrow_source, named

FOOTER_KEY = b"editpairs"
_MAGIC = b"PAR1"
_TAIL = 64 << 10
"""Bytes read at once from the end of a file. Most footers are smaller."""
NO_SEAL = "0" * 32
_SEAL = re.compile(rb'"seal": "([0-9a-f]{32})"')


class DamagedFileError(UserError):
    """A file that exists and fails a check."""

    def __init__(self, path: Location, why: str, other_run: bool = False) -> None:
        super().__init__(f"{path} cannot be believed: {why}")
        self.why = why
        self.other_run = other_run
        """Whether the file is intact and belongs to a run with another plan."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a file: its run, stage and number."""

    run: str
    """Digest of the run's plan; empty for the plan file itself."""
    stage: str
    unit: int


def read_metadata(path: Location, place: Place | None) -> tuple[dict[str, Any], pq.FileMetaData]:
    """Read a file's footer: its JSON record and its parquet metadata.

    ``place`` None skips the check of place.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: the file cannot be read.
        DamagedFileError: the file is truncated, changed, not written by editpairs, or of another place.
    """
    return _parsed(path, _read_tail(path), place)


def _parsed(path: Location, tail: bytes, place: Place | None) -> tuple[dict[str, Any], pq.FileMetaData]:
    try:
        footer = pq.read_metadata(pa.BufferReader(tail))
        content = json.loads((footer.metadata or {})[FOOTER_KEY])
        found = Place(content["run"], content["stage"], content["unit"])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, "its footer was not written by editpairs") from error
    if place is not None and found != place:
        other_run = found.run != place.run
        whose = "another run" if other_run else f"{found.stage}, number {found.unit}"
        raise DamagedFileError(path, f"it is a file of {whose}", other_run)
    return content, footer


def check_digest(path: Location, place: Place | None) -> str:
    """Read a whole file, compare it with its checksums, and return its SHA-256.

    Raises:
        The errors of ``read_metadata``; DamagedFileError also if any byte was changed.
    """
    tail = _read_tail(path)
    content, _ = _parsed(path, tail, place)
    digest, sha256, rest = hashlib.blake2b(digest_size=16), hashlib.sha256(), path.stat().st_size - len(tail)
    with named(path), path.open("rb") as file:
        while rest and (block := file.read(min(rest, 1 << 22))):
            digest.update(block)
            sha256.update(block)
            rest -= len(block)
    sha256.update(tail)
    if digest.hexdigest() != content.get("digest"):
        raise DamagedFileError(path, "its content is not what was committed")
    return sha256.hexdigest()


def read_table(path: Location, columns: Sequence[str] | None = None) -> pa.Table:
    """Read some columns of a file, or all columns.

    Raises:
        OSError, DamagedFileError: the file is missing, cannot be read, or was changed in the pages read.
    """
    return pa.concat_tables(read_tables(path, columns, (1 << 31) - 1))


def read_tables(path: Location, columns: Sequence[str] | None, batch: int) -> Iterator[pa.Table]:
    """Yield some columns in tables of at most ``batch`` rows; at least one table, possibly empty.

    Raises:
        The errors of ``read_table``.
    """
    with opened(path) as file:
        chosen = file.schema_arrow.names if columns is None else list(columns)
        yield file.schema_arrow.empty_table().select(chosen).replace_schema_metadata()
        for group in range(file.num_row_groups):  # one at a time: each fits into Arrow's arrays
            for part in file.iter_batches(batch_size=batch, row_groups=[group], columns=chosen):
                yield pa.Table.from_batches([part]).select(chosen).replace_schema_metadata()


class CountedFile(pq.ParquetFile):
    """A parquet file that raises ``pa.ArrowInvalid`` if row groups have fewer rows than the footer says.

    A page's header has no checksum, and Arrow skips a page whose header names an unknown kind of page.
    """

    def read_row_group(self, i: int, *args: Any, **options: Any) -> pa.Table:
        table = super().read_row_group(i, *args, **options)
        self._count([i], table.num_rows)
        return table

    def iter_batches(
        self, batch_size: int = 65536, row_groups: Sequence[int] | None = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        groups, rows = range(self.num_row_groups) if row_groups is None else row_groups, 0
        for batch in super().iter_batches(batch_size=batch_size, row_groups=list(groups), **options):
            rows += batch.num_rows
            yield batch
        self._count(groups, rows)

    def _count(self, groups: Iterable[int], rows: int) -> None:
        expected = sum(self.metadata.row_group(group).num_rows for group in groups)
        if rows != expected:
            raise pa.ArrowInvalid(f"{rows} of {expected} rows could be read")


def open_file(path: Location) -> pq.ParquetFile:
    """Open a parquet file; pages are compared with their checksums and rows are counted when they are read.

    Every file of a run and every shard is opened by this function. Read from it inside ``believing``.
    """
    return CountedFile(arrow_source(path), page_checksum_verification=True)


@contextmanager
def believing(path: Location) -> Iterator[None]:
    """Separate errors of a damaged file from errors of the system.

    Raises:
        OSError: the system cannot read the file; the error names it.
        DamagedFileError: the content of the file is wrong.
    """
    try:
        with named(path):
            yield
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, KeyError, EOFError, UnicodeDecodeError) as error:
        raise DamagedFileError(path, str(error)) from error
    except OSError as error:
        if error.errno is None:  # Arrow reports a wrong page checksum as OSError without errno
            raise DamagedFileError(path, str(error)) from error
        raise


@contextmanager
def opened(path: Location) -> Iterator[pq.ParquetFile]:
    """Open a parquet file for the block.

    Raises:
        The errors of ``believing``.
    """
    with believing(path), open_file(path) as file:
        yield file


def checksum(footer: bytes) -> str:
    """blake2b of the footer up to the end of the file, computed with zeros in place of the seal."""
    return hashlib.blake2b(footer, digest_size=16).hexdigest()


def with_seal(footer: bytes, seal: str) -> bytes:
    """Replace the last seal in the footer. Earlier matches can be captions quoted in column statistics."""
    place = max(_SEAL.finditer(footer), key=lambda match: match.start())
    return footer[: place.start(1)] + seal.encode() + footer[place.end(1) :]


def _read_tail(path: Location) -> bytes:
    """Read from the start of the footer to the end of the file, and check the seal."""
    with named(path), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - min(size, _TAIL))
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != _MAGIC or length + len(_MAGIC) > size:
            raise DamagedFileError(path, "it is cut short, or not a parquet file")
        if length > len(tail):
            file.seek(size - length)
            tail = file.read()
    tail = tail[-length:]
    seals = _SEAL.findall(tail)
    if not seals:
        raise DamagedFileError(path, "it has no seal: another program wrote it, or an earlier editpairs")
    if checksum(with_seal(tail, NO_SEAL)) != seals[-1].decode():
        raise DamagedFileError(path, "its footer was changed")
    return tail
