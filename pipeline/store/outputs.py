"""Output of a command at the user's path (``--out``): a file, or a new folder of files.

Both can be local or in an object store. A path that cannot be written raises an error before the work starts.
Nothing appears under the final name until it is complete.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.store.files import put, remove
from pipeline.store.location import Location, is_local, reached
from pipeline.store.new_file import NewFile


class OutputFile(NewFile):
    """A new file whose write errors, such as a full disk, become one message for the user."""

    def __init__(self, path: Location) -> None:
        with _told(path):
            path = _real(path)
            if path.exists() and not path.is_file():
                raise UserError(f"--out {path}: the path exists and is not a file")
            super().__init__(path)
            if not is_local(path):
                _try(path)

    def write(self, data: bytes) -> int:
        with _told(self._path):
            return super().write(data)

    def commit(self) -> None:
        with _told(self._path):
            super().commit()


@contextmanager
def new_file(path: Location) -> Iterator[OutputFile]:
    """A file that appears under its name once it is complete, and not at all after an error.

    Raises:
        UserError: the file cannot be written. Raised before any work is done.
    """
    with OutputFile(path) as file:
        yield file
        file.commit()


class NewFolder:
    """A new folder while it is being written."""

    def __init__(self, path: Location) -> None:
        self._path = path
        self.names: list[str] = []
        """Names of the files written so far, relative to the folder."""

    @contextmanager
    def file(self, name: str) -> Iterator[OutputFile]:
        """Open a new file in the folder."""
        self.names.append(name)
        with new_file(self._path / name) as file:
            yield file


@contextmanager
def new_folder(out: Location) -> Iterator[NewFolder]:
    """A folder that appears under its name once all files are written.

    An object store cannot rename a folder. There each file appears as soon as it is complete, and a later
    failure removes the files already written.

    Raises:
        UserError: the path already exists, or it cannot be written. Raised before any work is done.
    """
    with _told(out):
        out = _real(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: the path exists already; name a new folder, or delete that one")
        if is_local(out) and os.path.ismount(out):
            raise UserError(f"--out {out}: nothing can take the place of a mount point; name a folder in it")
        under_way = out
        if is_local(out):
            # A unique name: it must not touch files left by an earlier command or another program.
            under_way = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
            under_way.mkdir(parents=True)
        else:
            _try(out / "README.md")
    folder = NewFolder(under_way)
    try:
        yield folder
        if is_local(out):
            with _told(out):
                if out.exists():
                    out.rmdir()
                under_way.rename(out)
    except BaseException:
        if is_local(under_way):
            shutil.rmtree(under_way, ignore_errors=True)
        else:
            for name in folder.names:
                with suppress(Exception):
                    remove(under_way / name)
        raise


def _real(path: Location) -> Location:
    """The target of a symbolic link, so that the link itself is not replaced.

    Raises:
        OSError: the links lead in a circle.
        UserError: the path is ``-``, which means standard output elsewhere.
    """
    if str(path) == "-":
        raise UserError("--out -: standard output is for tables; name a file or a folder")
    if not is_local(path):
        return path
    real = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        real.stat()
    return real


def _try(path: Location) -> None:
    """Write and remove an empty object. Listing a store does not show whether it accepts writes."""
    tried = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    put(tried, b"")
    remove(tried)


@contextmanager
def _told(path: Location) -> Iterator[None]:
    try:
        with reached(path):
            yield
    except OSError as error:
        raise UserError(f"--out {path}: it cannot be written: {error.strerror or error}") from error
