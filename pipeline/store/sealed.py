"""Parquet files that say where they belong, and of which every byte is under a checksum.

``digest`` in the footer is of all bytes before the footer, ``seal`` of the footer itself, so that what a
footer says can be believed without reading the rest. Pages have checksums of their own, so that what is
read can be believed without reading all. Nothing in a file depends on the clock or the machine.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Self

from pipeline.errors import UserError
from pipeline.store.location import Location, arrow_source, named
from pipeline.store.new_file import NewFile

FOOTER_KEY = b"editpairs"
MAX_GROUP_BYTES = 256 << 20
"""Of a row group: Arrow cannot read one whose nested columns hold more than 2 GiB."""
_MAGIC = b"PAR1"
_TAIL = 64 << 10
"""Bytes read at once from a file's end; most footers are smaller."""
_NO_SEAL = "0" * 32
_SEAL = re.compile(rb'"seal": "([0-9a-f]{32})"')


class DamagedFileError(UserError):
    """A file that is there and cannot be believed."""

    def __init__(self, path: Location, why: str, other_run: bool = False) -> None:
        super().__init__(f"{path} cannot be believed: {why}")
        self.why = why
        self.other_run = other_run
        """Whether it is a whole file of a run with another plan."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file belongs."""

    run: str
    """The digest of the run's plan; empty for the plan itself."""
    stage: str
    unit: int


def read_metadata(path: Location, place: Place | None) -> tuple[dict[str, Any], pq.FileMetaData]:
    """The JSON in a file's footer, and the footer; ``place`` is None where any will do.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
        DamagedFileError: it is cut short, changed, not ours, or of another place.
    """
    return _parsed(path, _read_tail(path), place)


def _parsed(path: Location, tail: bytes, place: Place | None) -> tuple[dict[str, Any], pq.FileMetaData]:
    try:
        footer = pq.read_metadata(pa.BufferReader(tail))
        content = json.loads((footer.metadata or {})[FOOTER_KEY])
        found = Place(content["run"], content["stage"], content["unit"])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(path, "its footer is not one of ours") from error
    if place is not None and found != place:
        other_run = found.run != place.run
        whose = "another run" if other_run else f"{found.stage}, number {found.unit}"
        raise DamagedFileError(path, f"it is a file of {whose}", other_run)
    return content, footer


def check_digest(path: Location, place: Place | None) -> str:
    """Read a whole file, compare it with what was committed, and return its SHA-256.

    Raises:
        as ``read_metadata``; DamagedFileError also if any byte of it changed.
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
    """Some columns of a file, or all.

    Raises:
        OSError, DamagedFileError: it is missing, cannot be read, or was changed in what is read.
    """
    return pa.concat_tables(read_tables(path, columns, (1 << 31) - 1))


def read_tables(path: Location, columns: Sequence[str] | None, batch: int) -> Iterator[pa.Table]:
    """Some columns of a file, at most ``batch`` rows at a time; at least one table, which may be empty.

    Raises:
        as ``read_table``.
    """
    with opened(path) as file:
        chosen = file.schema_arrow.names if columns is None else list(columns)
        yield file.schema_arrow.empty_table().select(chosen).replace_schema_metadata()
        for group in range(file.num_row_groups):  # one at a time: each fits into Arrow's arrays
            for part in file.iter_batches(batch_size=batch, row_groups=[group], columns=chosen):
                yield pa.Table.from_batches([part]).select(chosen).replace_schema_metadata()


def open_file(path: Location) -> pq.ParquetFile:
    """A parquet file whose pages are compared with their checksums as they are read.

    Every file of a run and every shard is opened by this function. What is read of it is read within
    ``believing``.
    """
    return pq.ParquetFile(arrow_source(path), page_checksum_verification=True)


@contextmanager
def believing(path: Location) -> Iterator[None]:
    """Tell a file that is damaged from one that the system cannot read.

    Raises:
        OSError: the system cannot read it; the error names the file.
        DamagedFileError: its content is wrong.
    """
    try:
        with named(path):
            yield
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, KeyError, EOFError, UnicodeDecodeError) as error:
        raise DamagedFileError(path, str(error)) from error
    except OSError as error:
        if error.errno is None:  # Arrow says so of a page whose checksum is wrong
            raise DamagedFileError(path, str(error)) from error
        raise


@contextmanager
def opened(path: Location) -> Iterator[pq.ParquetFile]:
    """A parquet file that is open within the block.

    Raises:
        as ``believing``.
    """
    with believing(path), open_file(path) as file:
        yield file


class SealedWriter:
    """Writes one file a table (row group) at a time; without ``commit`` nothing is left behind."""

    def __init__(self, path: Location, schema: pa.Schema) -> None:
        self._file = _HashedFile(path)
        text = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="zstd", use_dictionary=text, write_page_checksum=True
        )

    def write(self, table: pa.Table) -> None:
        """Add a table as a row group, or as several where one would hold over ``MAX_GROUP_BYTES``."""
        if table.num_rows > 1 and table.nbytes > MAX_GROUP_BYTES:
            half = table.num_rows // 2
            self.write(table.slice(0, half))
            self.write(table.slice(half))
        elif table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)

    def commit(self, place: Place, content: Mapping[str, Any]) -> str:
        """Make the file visible under its name, with ``content`` and its checksums in the footer.

        Returns the digest: blake2b of the bytes before the footer.
        """
        digest = self._file.digest.hexdigest()
        whole = {**content, "run": place.run, "stage": place.stage, "unit": place.unit, "digest": digest}
        footer = json.dumps({**whole, "seal": _NO_SEAL}, sort_keys=True)
        self._writer.add_key_value_metadata({FOOTER_KEY.decode(): footer})
        self._file.hold()
        self._writer.close()
        self._file.seal()
        self._file.commit()
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.hold()  # where nothing was committed, the writer's last words are for nobody
        try:
            self._writer.close()
        finally:
            self._file.__exit__(kind, error, trace)


class _HashedFile(NewFile):
    """A file that hashes what is written to it, and seals the footer that comes last."""

    def __init__(self, path: Location) -> None:
        super().__init__(path)
        self.digest = hashlib.blake2b(digest_size=16)
        self._footer: list[bytes] | None = None

    def write(self, data: bytes) -> int:
        if self._footer is not None:
            self._footer.append(bytes(data))
            return len(data)
        self.digest.update(data)
        return super().write(data)

    def hold(self) -> None:
        """Keep what is written from now on: the footer."""
        self._footer = self._footer or []

    def seal(self) -> None:
        """Write the footer, its own checksum in it."""
        footer = b"".join(self._footer or [])
        super().write(_with_seal(footer, _checksum(footer)))


def _checksum(footer: bytes) -> str:
    """blake2b of a footer whose seal is zeros, to the end of the file."""
    return hashlib.blake2b(footer, digest_size=16).hexdigest()


def _with_seal(footer: bytes, seal: str) -> bytes:
    """Put a seal in its place: the last one, for a column's statistics may quote a caption that has one."""
    place = max(_SEAL.finditer(footer), key=lambda match: match.start())
    return footer[: place.start(1)] + seal.encode() + footer[place.end(1) :]


def _read_tail(path: Location) -> bytes:
    """The footer's bytes to the end of the file, their seal checked."""
    with named(path), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(size - min(size, _TAIL))
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != _MAGIC or length + len(_MAGIC) > size:
            raise DamagedFileError(path, "it is cut short, or no parquet file")
        if length > len(tail):
            file.seek(size - length)
            tail = file.read()
    tail = tail[-length:]
    seals = _SEAL.findall(tail)
    if not seals:
        raise DamagedFileError(path, "it has no seal: another program wrote it, or an earlier editpairs")
    if _checksum(_with_seal(tail, _NO_SEAL)) != seals[-1].decode():
        raise DamagedFileError(path, "its footer was changed")
    return tail
