"""Files that are there wholly or not at all, and the names of those that are not finished."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from pipeline.store.location import Location, is_local, list_folder, named

_TEMPORARY = re.compile(r"\.editpairs-.+\.tmp")


def temporary(path: Location, purpose: str) -> Location:
    """Where something unfinished lies beside ``path``: under a name that no user's file has."""
    return path.with_name(f".editpairs-{purpose}-{path.name}.tmp")


def remove_temporaries(run: Location) -> None:
    """Remove what killed processes left in a run's folder and in its stages' folders; nothing else."""
    stages = [run / name for name, is_folder in list_folder(run).items() if is_folder]
    for folder in [run, *stages]:
        for name, is_folder in list_folder(folder).items():
            if not is_folder and _TEMPORARY.fullmatch(name):
                (folder / name).unlink(missing_ok=True)


class NewFile:
    """A file that nobody sees before ``commit``; without it, nothing is left behind.

    Locally it is written beside its place and renamed; an object store shows an object once it is
    complete. Has the part of Python's file protocol that Arrow calls.
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
        """Make it visible; it survives a power cut."""
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
        """Leave nothing behind. The error before is the one to be told, whatever a store raises here."""
        with suppress(Exception):
            if is_local(self._path):
                self._written.unlink(missing_ok=True)
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
    """Replace a file's content wholly or not at all."""
    with NewFile(path) as file:
        file.write(text.encode("utf-8"))
        file.commit()


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
