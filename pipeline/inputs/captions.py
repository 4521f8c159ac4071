"""The input: one column of captions from a file, or from all files of a folder or a pattern.

A caption is data. An empty one, a very long one or one with control characters is a row like any
other, for the instruct stage to judge; only files that cannot be read as what they are stop a run.
"""

import glob
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.errors import UserError
from pipeline.inputs.caption_formats import FORMATS, Reader, format_of
from pipeline.store.location import Location, is_local, reached


def read_captions(path: Location, column: str) -> pa.ChunkedArray:
    """The captions in the order of the files and their rows, as ``large_string``; null is the empty caption.

    Args:
        path: a file of one of ``FORMATS`` (:mod:`pipeline.inputs.caption_formats`), a folder of such
            files, or a pattern (``captions/*.parquet``).
        column: the caption column; not used for ``.txt``.

    Raises:
        UserError: the files or the column are not there, a file cannot be read, or no caption has text.
    """
    chunks: list[pa.Array] = []
    for file in caption_files(path):
        with _named(file):
            read = format_of(file)
            assert read is not None
            captions = read(file, column)
            _check_text(captions, file)
            chunks += captions.cast(pa.large_string()).fill_null("").chunks
    captions = pa.chunked_array(chunks, pa.large_string())
    if len(captions) == 0:
        raise UserError(f"captions.file: {path} holds no captions")
    if not any(pc.any(pc.not_equal(pc.utf8_trim_whitespace(chunk), "")).as_py() for chunk in chunks):
        raise UserError(
            f"captions.file: all {len(captions)} captions in {path} are empty: is captions.column the right "
            "one?"
        )
    return captions


def content_hash(path: Location) -> str:
    """blake2b of a file's bytes; of several files, of their names and bytes in their order."""
    files = caption_files(path)
    names = [str(file) if is_local(file) else file.path for file in files]
    common = os.path.commonpath([os.path.dirname(name) for name in names])
    content = hashlib.blake2b(digest_size=16)
    for file, name in zip(files, names, strict=True):
        with _named(file), file.open("rb") as stream:
            if files != [path]:
                header = f"{os.path.relpath(name, common)}\x1f{file.stat().st_size}\x1f"
                content.update(header.encode(errors="surrogateescape"))
            while chunk := stream.read(1 << 20):
                content.update(chunk)
    return content.hexdigest()


def caption_files(path: Location) -> list[Location]:
    """The file that a path names, or those of a folder or a pattern by name; all are of one format.

    Other files of a folder, such as a README, and hidden ones are passed over.

    Raises:
        UserError: there is none, they are of several formats or none that is known.
    """
    with _named(path):
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = [file for file in path.iterdir() if format_of(file) and not file.name.startswith(".")]
        else:
            files = _matches(path)
        files = sorted((file for file in files if not is_local(file) or file.is_file()), key=str)
        folder = path.is_dir()
    if not files:
        what = f"there is no file {path}" if not folder else f"the folder {path} holds no files of captions"
        looked = f" (looked in {os.getcwd()})" if is_local(path) else ""
        raise UserError(f"captions.file: {what}{looked}; formats: {_formats()}")
    unknown = [file for file in files if format_of(file) is None]
    if unknown:
        raise UserError(f"captions.file: {unknown[0]} is of no format that is read: {_formats()}")
    kinds: dict[Reader | None, Location] = {}
    for file in files:
        kinds.setdefault(format_of(file), file)
    if len(kinds) > 1:
        one, other = [*kinds.values()][:2]
        raise UserError(
            f"captions.file: {path} has files of several formats, such as {one.name} and {other.name}: "
            f"name those of one format by a pattern, such as {path}/*{one.suffix}"
        )
    return files


def _matches(path: Location) -> list[Location]:
    if not glob.has_magic(str(path)):
        return []
    if is_local(path):
        return [type(path)(name) for name in glob.glob(str(path), recursive=True)]
    return [UPath(name, protocol=path.protocol, **path.storage_options) for name in path.fs.glob(path.path)]


def _formats() -> str:
    return ", ".join(FORMATS)


@contextmanager
def _named(path: Location) -> Iterator[None]:
    """Say of which file it is that something cannot be read."""
    try:
        with reached(path):
            yield
    except (OSError, pa.ArrowException, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"captions.file: {path} cannot be read: {reason[:300]}") from error


def _check_text(captions: pa.ChunkedArray, file: Location) -> None:
    """Check that every caption is UTF-8: a parquet file may claim it."""
    row = 0
    for chunk in captions.chunks:
        try:
            chunk.validate(full=True)
        except pa.ArrowInvalid as error:
            while len(chunk) > 1:  # which one it is: by halves
                half = chunk.slice(0, len(chunk) // 2)
                try:
                    half.validate(full=True)
                except pa.ArrowInvalid:
                    chunk = half
                else:
                    chunk, row = chunk.slice(len(half)), row + len(half)
            raise UserError(
                f"captions.file: {file}: the caption of row {row} (from 0) is not UTF-8: write the file "
                "again from text that is"
            ) from error
        row += len(chunk)
