"""The input of a run: one column of captions, from one file, a folder or a pattern.

A caption is data. An empty caption, a very long one, or one with control characters is still a row; the
instruct stage rejects it. Only a file that cannot be read in its format stops a run.
"""

import glob
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from pipeline.errors import UserError
from pipeline.inputs.caption_formats import FORMATS, Reader, format_of
from pipeline.store.location import Location, exists, is_local, reached


def read_captions(path: Location, column: str) -> pa.ChunkedArray:
    """Read the captions as ``large_string``, in the order of files and rows. A null becomes an empty caption.

    Args:
        path: a file of one of ``FORMATS`` (:mod:`pipeline.inputs.caption_formats`), a folder of such
            files, or a pattern (``captions/*.parquet``).
        column: the caption column; not used for ``.txt``.

    Raises:
        UserError: a file or the column is missing, a file cannot be read, or every caption is empty.
    """
    chunks: list[pa.Array] = []
    for file in caption_files(path):
        with named(file):
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
            "one? (null is for pictures without captions, with a section describe)"
        )
    return captions


def content_hash(path: Location) -> str:
    """blake2b of a file's bytes. For several files it also covers their names, in order."""
    files = caption_files(path)
    names = [str(file) if is_local(file) else file.path for file in files]
    common = os.path.commonpath([os.path.dirname(name) for name in names])
    content = hashlib.blake2b(digest_size=16)
    for file, name in zip(files, names, strict=True):
        with named(file), file.open("rb") as stream:
            if files != [path]:
                header = f"{os.path.relpath(name, common)}\x1f{file.stat().st_size}\x1f"
                content.update(header.encode(errors="surrogateescape"))
            while chunk := stream.read(1 << 20):
                content.update(chunk)
    return content.hexdigest()


def caption_files(path: Location) -> list[Location]:
    """The caption files at ``path``: one file, or the files of a folder or pattern, sorted by name.

    All files must have the same format. In a folder, hidden files and files of other kinds are ignored.

    Raises:
        UserError: there is no file, the formats differ, or the format is unknown.
    """
    folder = False
    with named(path):
        if not exists(path):
            files = _matches(path)
        elif path.is_dir():
            folder = True
            files = [file for file in path.iterdir() if format_of(file) and not file.name.startswith(".")]
        else:
            files = [path]
    files = sorted((file for file in files if _is_file(file)), key=str)
    if not files:
        what = f"there is no file {path}" if not folder else f"the folder {path} holds no files of captions"
        looked = f" (looked in {os.getcwd()})" if is_local(path) else ""
        raise UserError(f"captions.file: {what}{looked}; formats: {_formats()}")
    unknown = [file for file in files if format_of(file) is None]
    if unknown:
        raise UserError(f"captions.file: {unknown[0]} has an unknown format: {_formats()}")
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


def _is_file(file: Location) -> bool:
    """Whether a path is a file. A link to nowhere is an error: its captions are missing."""
    with named(file):
        return not is_local(file) or stat.S_ISREG(file.stat().st_mode)


def _matches(path: Location) -> list[Location]:
    if not glob.has_magic(str(path)):
        return []
    if is_local(path):
        _check_listed(path)
        return [type(path)(name) for name in glob.glob(str(path), recursive=True)]
    return [UPath(name, protocol=path.protocol, **path.storage_options) for name in path.fs.glob(path.path)]


def _check_listed(pattern: Path) -> None:
    """Raise if the folder above a pattern cannot be listed: the pattern would find nothing there."""
    folder = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder):
        pass


def _formats() -> str:
    return ", ".join(FORMATS)


@contextmanager
def named(path: Location) -> Iterator[None]:
    """Turn errors while reading ``path`` into a UserError that names the file."""
    try:
        with reached(path):
            yield
    except (OSError, pa.ArrowException, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"captions.file: {path} cannot be read: {reason[:300]}") from error


def _check_text(captions: pa.ChunkedArray, file: Location) -> None:
    """Check that every caption is valid UTF-8. A parquet file can claim UTF-8 and hold other bytes."""
    row = 0
    for chunk in captions.chunks:
        try:
            chunk.validate(full=True)
        except pa.ArrowInvalid as error:
            while len(chunk) > 1:  # find the wrong caption by bisection
                half = chunk.slice(0, len(chunk) // 2)
                try:
                    half.validate(full=True)
                except pa.ArrowInvalid:
                    chunk = half
                else:
                    chunk, row = chunk.slice(len(half)), row + len(half)
            raise UserError(
                f"captions.file: {file}: the caption of row {row} (from 0) is not UTF-8: write the file "
                "again as UTF-8"
            ) from error
        row += len(chunk)
