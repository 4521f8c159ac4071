"""What a command writes where its user says (``--out``): a file, or a new folder of files.

Both may lie on a disk or in an object store. Whether they can be written is known before the work that
fills them is done, and nothing is seen under the name before it is whole.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.store.location import Location, is_local, reached
from pipeline.store.new_file import NewFile


class OutputFile(NewFile):
    """A new file whose errors are one message: a full disk is the user's to mend."""

    def __init__(self, path: Location) -> None:
        with _told(path):
            path = _real(path)
            if path.exists() and not path.is_file():
                raise UserError(f"--out {path}: there is something already that is not a file")
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
    """A file that takes its place when all is written, and never does if that fails.

    Raises:
        UserError: it cannot be written; said before anything is done.
    """
    with OutputFile(path) as file:
        yield file
        file.commit()


class NewFolder:
    """A folder under way: what is written to it, and where."""

    def __init__(self, path: Location) -> None:
        self._path = path
        self.names: list[str] = []
        """Of the files written so far, relative to the folder."""

    @contextmanager
    def file(self, name: str) -> Iterator[OutputFile]:
        """A file of the folder."""
        self.names.append(name)
        with new_file(self._path / name) as file:
            yield file


@contextmanager
def new_folder(out: Location) -> Iterator[NewFolder]:
    """A folder that appears under its name once all is written.

    An object store has no folders to rename: there each file appears once it is whole, and those written
    are removed again if a later one fails.

    Raises:
        UserError: something is there already, or it cannot be written; said before anything is done.
    """
    with _told(out):
        out = _real(out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"--out {out}: there is something already; name a new folder, or delete that one")
        if is_local(out) and os.path.ismount(out):
            raise UserError(f"--out {out}: nothing can take the place of a mount point; name a folder in it")
        under_way = out
        if is_local(out):
            # A name of its own: what an earlier command or another program has left is not touched.
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
                    (under_way / name).unlink()
        raise


def _real(path: Location) -> Location:
    """What a link points to: the link is not replaced."""
    return Path(os.path.realpath(path)) if is_local(path) else path


def _try(path: Location) -> None:
    """Write and remove an empty object: whether a store takes any is known from no listing."""
    tried = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    tried.write_bytes(b"")
    tried.unlink()


@contextmanager
def _told(path: Location) -> Iterator[None]:
    try:
        with reached(path):
            yield
    except OSError as error:
        raise UserError(f"--out {path}: it cannot be written: {error.strerror or error}") from error
