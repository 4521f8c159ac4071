"""Atomic files: a file appears complete or not at all. Also the names of temporary files."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pipeline.store.files import remove
from pipeline.store.location import Location, is_local, list_folder, named

_TEMPORARY = re.compile(r"\.editpairs-.+\.tmp")


def temporary(path: Location, purpose: str) -> Location:
    """A temporary path beside ``path``, with a name that no user's file has."""
    return path.with_name(f".editpairs-{purpose}-{path.name}.tmp")


def remove_temporaries(run: Location) -> None:
    """Remove temporary files that killed processes left in a run folder and its stage folders."""
    stages = [run / name for name, is_folder in list_folder(run).items() if is_folder]
    for folder in [run, *stages]:
        for name, is_folder in list_folder(folder).items():
            if not is_folder and _TEMPORARY.fullmatch(name):
                remove(folder / name)


class NewFile:
    """A file that becomes visible on ``commit``. Without ``commit`` it leaves nothing behind.

    Locally it is written beside its final place and renamed. An object store shows an object only when it is
    complete. The class implements the part of Python's file protocol that Arrow calls.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        self._written = path
        self._committed = False
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._written = temporary(path, secrets.token_hex(4))
        self._file = self._written.open("wb")

    def write(self, data: bytes) -> int:
        with named(self._path):
            return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def commit(self) -> None:
        """Make the file visible and durable: it survives a power cut."""
        with named(self._path):
            if is_local(self._path):
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if is_local(self._path):
                os.replace(str(self._written), self._path)
                self._committed = True
                _sync_folder(self._path.parent)
        self._committed = True

    def abandon(self) -> None:
        """Discard the file. Errors here are ignored: the first error has already been raised."""
        with suppress(Exception):
            if is_local(self._path):
                remove(self._written)
                self._file.close()
            else:
                self._file.discard()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self.abandon()


def write_text(path: Location, text: str) -> None:
    """Replace a file's content atomically."""
    with NewFile(path) as file:
        file.write(text.encode("utf-8"))
        file.commit()


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk: only then does a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
