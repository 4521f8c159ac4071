"""Writing, extending and removing a file by its exact name, on a disk or in an object store."""

from contextlib import suppress

from pipeline.store.location import Location, is_local

SMALL = 5 << 20
"""Bytes. An object store appends to a larger object without reading it."""


def remove(path: Location) -> None:
    """Delete a file; a missing one is fine.

    An object's name is taken as it is. ``unlink`` of an object store takes ``*``, ``?`` and ``[`` as a
    pattern: it would miss the object, and could delete others.

    Raises:
        OSError: the file cannot be deleted.
    """
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        path.fs.rm_file(path.path)


def put(path: Location, content: bytes) -> None:
    """Write a small file. In an object store it is one request, after which no open file is left."""
    if is_local(path):
        path.write_bytes(content)
    else:
        path.fs.pipe_file(path.path, content)


def append(path: Location, content: bytes) -> None:
    """Add to the end of a file; a missing file is made. An object is replaced as a whole."""
    if is_local(path):
        with path.open("ab") as file:
            file.write(content)
        return
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    if size < SMALL:  # s3fs would read a small object by a pattern, as ``remove`` says
        put(path, (path.fs.cat_file(path.path) if size else b"") + content)
        return
    with path.open("ab") as file:
        file.write(content)
