"""One file a part of a stage, which is there wholly or not at all (:class:`pipeline.storage.NewFile`).

The footer says what the file is, so there is no second marker: the fingerprint of the stage that
wrote it, the digest of its content, the digests of what it read, and its counts. Nothing in a file
depends on the clock or the machine: two runs write the same bytes.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.counts import Counts, pack, unpack
from pipeline.storage import Location, NewFile, arrow_source

FOOTER_KEY = b"editpairs"


@dataclass(frozen=True, slots=True)
class Footer:
    """What a committed file says about itself."""

    fingerprint: str
    digest: str
    inputs: bytes
    """``digest_of_inputs`` of what it read."""
    packed: bytes
    """Its counts, as ``pipeline.counts`` packs them."""

    @property
    def counts(self) -> Counts:
        return unpack([self.packed])

    def total(self, status: str) -> int:
        return sum(n for (_, s, _), n in self.counts.items() if s == status)


def read_metadata(path: Location) -> tuple[dict[str, Any], pq.FileMetaData] | None:
    """The JSON in a file's footer, and the footer; None if the file is missing, cut short or not ours."""
    try:
        footer = pq.read_metadata(arrow_source(path))
        content = json.loads((footer.metadata or {})[FOOTER_KEY])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError):
        return None
    return (content, footer) if isinstance(content, dict) else None


def read_footer(path: Location) -> Footer | None:
    """The footer of a part; None if the file is missing, cut short or not ours."""
    found = read_metadata(path)
    if found is None:
        return None
    content, _ = found
    try:
        return Footer(
            fingerprint=sys.intern(content["fingerprint"]),
            digest=content["digest"],
            inputs=digest_of_inputs(content["inputs"]),
            packed=pack(((task, status, reason), n) for task, status, reason, n in content["counts"]),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return None


def digest_of_inputs(inputs: Mapping[str, str]) -> bytes:
    """One digest for ``stage/part`` -> digest of each upstream part that a file read."""
    lines = "\n".join(sorted(map("\t".join, inputs.items())))
    return hashlib.blake2b(lines.encode(), digest_size=16).digest()


def footer_content(
    fingerprint: str, inputs: Mapping[str, str], counts: Counts, smallest_batch: int | None = None
) -> dict[str, Any]:
    """What ``PartWriter.commit`` is given for a part, as ``read_footer`` expects it.

    ``smallest_batch`` is noted where batches had to be smaller than the manifest's, for want of memory.
    """
    return {
        **({} if smallest_batch is None else {"smallest_batch": smallest_batch}),
        "fingerprint": fingerprint,
        "inputs": dict(inputs),
        "counts": [[*key, n] for key, n in sorted(counts.items())],
    }


class PartWriter:
    """Writes one file a table (row group) at a time; without ``commit`` nothing is left behind."""

    def __init__(self, path: Location, schema: pa.Schema) -> None:
        self._file = _HashedFile(path)
        text = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd", use_dictionary=text)
        self._committed = False

    def write(self, table: pa.Table) -> None:
        """Append a row group."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)

    def commit(self, content: Mapping[str, Any]) -> str:
        """Make the file visible under its name, with ``content`` and its digest in the footer.

        Returns the digest: blake2b of the bytes before the footer.
        """
        digest = self._file.hash.hexdigest()
        footer = json.dumps({**content, "digest": digest}, sort_keys=True)
        self._writer.add_key_value_metadata({FOOTER_KEY.decode(): footer})
        self._writer.close()
        self._file.commit()
        self._committed = True
        return digest

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._writer.close()
            self._file.abandon()


class _HashedFile(NewFile):
    """A file that hashes what is written to it."""

    def __init__(self, path: Location) -> None:
        super().__init__(path)
        self.hash = hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return super().write(data)
