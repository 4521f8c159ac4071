"""A disk at which something happens once: at the n-th of all calls that read or write below a folder."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.store import sealed


class FaultyDisk:
    """Counts the calls, and strikes at call number ``at`` (0: never): raises an error of the system."""

    def __init__(self, folder: Path, at: int = 0, error: int = errno.EIO) -> None:
        self._folder, self._at, self._error = str(folder), at, error
        self.calls: list[str] = []

    def strike(self, what: str) -> None:
        raise OSError(self._error, os.strerror(self._error), what)

    def install(self, monkeypatch: Any) -> None:
        for name in ("replace", "scandir", "stat", "unlink", "mkdir", "open"):
            monkeypatch.setattr(os, name, self._guarded(f"os.{name}", getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._always("os.fsync", os.fsync))
        monkeypatch.setattr(io, "open", self._opening(io.open))
        monkeypatch.setattr(sealed, "arrow_source", self._guarded("arrow opens", sealed.arrow_source))

    def _call(self, what: str, half: Callable[[], object] = lambda: None) -> None:
        self.calls.append(what)
        if len(self.calls) == self._at:
            half()
            self.strike(what)

    def _guarded(self, name: str, really: Callable) -> Callable:
        def call(path: Any = ".", *more: Any, **named: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path).startswith(self._folder):
                self._call(f"{name} {path}")
            return really(path, *more, **named)

        return call

    def _always(self, name: str, really: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            self._call(name)
            return really(*arguments)

        return call

    def _opening(self, really: Callable) -> Callable:
        def call(path: Any, *more: Any, **named: Any) -> Any:
            if isinstance(path, int) or not os.fspath(path).startswith(self._folder):
                return really(path, *more, **named)
            self._call(f"open {path}")
            return _File(really(path, *more, **named), self, str(path))

        return call


class _File:
    """An open file whose reads and writes may fail."""

    def __init__(self, file: Any, disk: FaultyDisk, path: str) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __getattr__(self, name: str) -> Any:
        if name in ("read", "readline", "flush", "truncate", "close"):
            self._disk._call(f"{name} {self._path}")
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        """Where it strikes, half of the data is written."""
        self._disk._call(f"write {self._path}", lambda: self._write_half(data))
        return self._file.write(data)

    def _write_half(self, data: Any) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()

    def __iter__(self) -> Any:
        self._disk._call(f"iterate {self._path}")
        return iter(self._file)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()
