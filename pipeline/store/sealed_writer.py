"""Writing sealed files: parquet files that record their place, with a checksum over every byte."""

import hashlib
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Self

from pipeline.store.location import Location
from pipeline.store.new_file import NewFile
from pipeline.store.sealed import FOOTER_KEY, NO_SEAL, Place, checksum, with_seal

MAX_GROUP_BYTES = 256 << 20
"""Largest row group, in bytes. Arrow cannot read one whose nested columns exceed 2 GiB."""


class SealedWriter:
    """Writes a parquet file, one table (row group) at a time. Without ``commit`` it leaves nothing behind."""

    def __init__(self, path: Location, schema: pa.Schema) -> None:
        self._file = _HashedFile(path)
        text = [field.name for field in schema if pa.types.is_string(field.type)]
        try:
            self._writer = pq.ParquetWriter(
                self._file, schema, compression="zstd", use_dictionary=text, write_page_checksum=True
            )
        except BaseException:
            # Otherwise a temporary file, or a half-sent object, stays.
            self._file.abandon()
            raise

    def write(self, table: pa.Table) -> None:
        """Write a table as one row group, or as several if one would exceed ``MAX_GROUP_BYTES``."""
        if table.num_rows > 1 and table.nbytes > MAX_GROUP_BYTES:
            half = table.num_rows // 2
            self.write(table.slice(0, half))
            self.write(table.slice(half))
        elif table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)

    def commit(self, place: Place, content: Mapping[str, Any]) -> str:
        """Finish the file and make it visible; ``content``, the place and the checksums go into the footer.

        Returns the digest: blake2b of all bytes before the footer.
        """
        digest = self._file.digest.hexdigest()
        whole = {**content, "run": place.run, "stage": place.stage, "unit": place.unit, "digest": digest}
        footer = json.dumps({**whole, "seal": NO_SEAL}, sort_keys=True)
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
        self._file.hold()  # closing the parquet writer writes a footer; nobody needs it here
        try:
            self._writer.close()
        finally:
            self._file.__exit__(kind, error, trace)


class _HashedFile(NewFile):
    """A file that hashes what is written and adds a seal to the footer."""

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
        """Buffer everything written from now on: the footer."""
        self._footer = self._footer or []

    def seal(self) -> None:
        """Write the footer, including its own checksum."""
        footer = b"".join(self._footer or [])
        super().write(with_seal(footer, checksum(footer)))
