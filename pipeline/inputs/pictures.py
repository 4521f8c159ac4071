"""Pictures of the captions' rows: which file or parquet row holds each one, read without trusting its name.

``captions.picture`` names a column. It holds a path, relative to the folder of its caption file, or in
parquet the bytes themselves (binary, or ``datasets``' struct of bytes and path). The plan keeps each
picture's digest, so that a picture which was changed or lost after planning is told and never used.
"""

import errno
import hashlib
import os
import posixpath
import stat
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.inputs.caption_formats import format_of, read_parquet, read_text
from pipeline.inputs.caption_formats.opened import require
from pipeline.inputs.captions import caption_files, named
from pipeline.manifest.captions import Captions
from pipeline.store.location import Location, arrow_source, is_local

MOST_BYTES = 64 << 20
"""Most bytes of a picture."""
PLANNED = ("row", "picture", "picture_digest", "picture_flaw")
"""The plan's columns that tell where a picture is: the caption's row; its path, null for one in parquet;
blake2b of its bytes; why there was no picture, or an empty text."""
READ = pa.schema([("picture_bytes", pa.large_binary()), ("picture_flaw", pa.string())])
"""What a stage gets of them: the bytes, and why there are none: ``picture_missing``, ``picture_outside`` (of
the captions' folder), ``picture_too_large``, ``picture_changed`` since planning, or an empty text."""

_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR}


class _NoPictureError(Exception):
    """There is no picture to read; the text says why."""


class Pictures:
    """The pictures of a run's captions.

    Args:
        captions: as for :func:`pipeline.inputs.captions.read_captions`.
        column: the picture column.
    """

    def __init__(self, captions: Location, column: str) -> None:
        self.captions, self.column = captions, column
        self._group: tuple[tuple[int, int], pa.Array] | None = None

    @cached_property
    def files(self) -> list[Location]:
        """The caption files, in order."""
        return caption_files(self.captions)

    @cached_property
    def root(self) -> Location:
        """The folder of the caption files, or the one above all of them. No picture outside of it is read."""
        folders = sorted({file.parent for file in self.files}, key=str)
        if len(folders) == 1:
            return folders[0]
        if not is_local(folders[0]):
            raise UserError(f"captions.picture: the files of {self.captions} must lie in one folder")
        return Path(os.path.commonpath([str(folder) for folder in folders]))

    def names(self) -> pa.ChunkedArray:
        """The pictures' paths below ``root``, in the order of the captions; null: the bytes lie in parquet.

        Raises:
            UserError: a file has no such column, or it holds neither paths nor bytes.
        """
        chunks = []
        for file in self.files:
            with named(file):
                below = "."
                if file.parent != self.root:
                    below = os.path.relpath(str(file.parent), str(self.root))
                chunks.append(_names(file, self.column, "" if below == "." else below))
        return pa.chunked_array(chunks, pa.large_string())

    def described(self, rows: Sequence[int], names: Sequence[str | None]) -> dict[str, list[str | None]]:
        """The plan's columns ``picture_digest`` and ``picture_flaw`` for some rows.

        Raises:
            UserError: a picture is there and cannot be read.
        """
        digests: list[str | None] = []
        flaws: list[str | None] = []
        for row, name in zip(rows, names, strict=True):
            try:
                digests.append(_digest(self._read(row, name)))
                flaws.append("")
            except _NoPictureError as error:
                digests.append(None)
                flaws.append(str(error))
        return {"picture_digest": digests, "picture_flaw": flaws}

    def read(self, planned: pa.Table) -> pa.Table:
        """The columns of ``READ`` in place of ``PLANNED``.

        Raises:
            UserError: a picture is there and cannot be read.
        """
        made = [self._as_planned(row) for row in planned.select(PLANNED).to_pylist()]
        table = planned.drop_columns(list(PLANNED))
        for field, values in zip(READ, zip(*made, strict=True), strict=True):
            table = table.append_column(field, pa.array(values, field.type))
        return table

    def _as_planned(self, row: Mapping[str, Any]) -> tuple[bytes | None, str]:
        if row["picture_flaw"]:
            return None, row["picture_flaw"]
        try:
            data = self._read(row["row"], row["picture"])
        except _NoPictureError:
            return None, "picture_changed"
        return (data, "") if _digest(data) == row["picture_digest"] else (None, "picture_changed")

    def _read(self, row: int, name: str | None) -> bytes:
        data = self._embedded(row) if name is None else _read_file(self.root, name)
        if len(data) > MOST_BYTES:
            raise _NoPictureError("picture_too_large")
        return data

    def _embedded(self, row: int) -> bytes:
        """The bytes in a row of the parquet files; the last row group is kept, since rows come in order."""
        number = bisect_right(self._starts, row) - 1
        file = self.files[number]
        with named(file):
            parquet = pq.ParquetFile(arrow_source(file))
            left, group = row - self._starts[number], 0
            while left >= (size := parquet.metadata.row_group(group).num_rows):
                left, group = left - size, group + 1
            if self._group is None or self._group[0] != (number, group):
                column = parquet.read_row_group(group, columns=[self.column])[self.column]
                self._group = (number, group), column.combine_chunks()
            value = self._group[1][left].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            raise _NoPictureError("picture_missing")
        return bytes(data)

    @cached_property
    def _starts(self) -> list[int]:
        """The number of each file's first row."""
        starts = [0]
        for file in self.files:
            with named(file):
                starts.append(starts[-1] + pq.read_metadata(arrow_source(file)).num_rows)
        return starts[:-1]


def pictures_of(captions: Captions) -> Pictures | None:
    """The pictures of a manifest's captions; None if the run draws its own."""
    return None if captions.picture is None else Pictures(captions.location, captions.picture)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _names(file: Location, column: str, below: str) -> pa.Array:
    """The paths in one file, below ``root``."""
    read = format_of(file)
    assert read is not None
    if read is read_text:
        raise UserError(f"captions.picture: {file} has no columns: name a file of another format")
    if read is read_parquet:
        schema = pq.read_schema(arrow_source(file))
        require(column, schema.names, file, "captions.picture")
        kind = schema.field(column).type
        if _is_bytes(kind):
            return pa.nulls(pq.read_metadata(arrow_source(file)).num_rows, pa.large_string())
        if pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}:
            return _of_structs(file, column, below)
    try:
        texts = read(file, column).to_pylist()
    except UserError as error:
        raise UserError(str(error).replace("captions.column", "captions.picture", 1)) from error
    return _joined(below, [text or "" for text in texts])


def _of_structs(file: Location, column: str, below: str) -> pa.Array:
    """Null where a struct holds bytes, else its path."""
    names: list[str | None] = []
    for batch in pq.ParquetFile(arrow_source(file)).iter_batches(64, columns=[column]):
        data, paths = (pc.struct_field(batch.column(0), name) for name in ("bytes", "path"))
        has_bytes = pc.fill_null(pc.greater(pc.binary_length(data), 0), False)
        names += pc.if_else(has_bytes, pa.scalar(None, paths.type), pc.fill_null(paths, "")).to_pylist()
    return _joined(below, names)


def _joined(below: str, names: Sequence[str | None]) -> pa.Array:
    whole = [posixpath.join(below, name) if name else name for name in names]
    return pa.array(whole, pa.large_string())


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _read_file(root: Location, name: str) -> bytes:
    """The bytes of a file below ``root``, at most ``MOST_BYTES + 1``.

    Raises:
        _NoPictureError: there is no regular file of this name, or it, or what a link leads to, lies outside.
        UserError: it is there and cannot be read.
    """
    if not name or "\0" in name:
        raise _NoPictureError("picture_missing")
    if posixpath.isabs(name) or ".." in name.split("/"):
        raise _NoPictureError("picture_outside")
    try:
        path = root / name
        if is_local(path):
            inside = Path(os.path.realpath(str(path)))
            if not inside.is_relative_to(os.path.realpath(str(root))):
                raise _NoPictureError("picture_outside")
            if not stat.S_ISREG(inside.stat().st_mode):
                raise _NoPictureError("picture_missing")
            path = inside
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "errno", None) in _ABSENT:
            raise _NoPictureError("picture_missing") from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"captions.picture: {name!r} in {root} cannot be read: {reason}") from error
    if not data:
        raise _NoPictureError("picture_missing")
    return data
