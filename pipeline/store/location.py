"""Where runs and captions lie: a local or shared folder, or an object store (``s3://bucket/folder``).

Both are paths with pathlib's methods (universal_pathlib, over fsspec); what is not the same for both is
here. Credentials and endpoints of an object store come from the environment (``AWS_PROFILE``,
``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...), so no file of a run can hold them.

A file is missing where the system says so (``FileNotFoundError``), and only there: any other error is
raised. pathlib's and fsspec's own ``exists`` and ``glob`` say "not there" of what they could not read.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from typing_extensions import TypeIs
from upath import UPath

from pipeline.errors import UserError

Location: TypeAlias = Path | UPath
SETTLED_S = 2.0
"""The coarsest clock of file systems in use."""


def locate(location: str | os.PathLike[str] | UPath) -> Location:
    """The path of a manifest's or a command's location.

    Raises:
        UserError: its protocol is unknown, or the package for it is not installed.
    """
    if isinstance(location, Path | UPath):
        return location
    text = os.fspath(location)
    if "://" not in text:
        return Path(text)
    try:
        path = UPath(text, use_listings_cache=False)  # others write there too
        path.fs  # noqa: B018 - imports the package
    except ImportError as error:
        protocol = text.partition("://")[0]
        raise UserError(f"{text}: {error}; pip install 'editpairs[{protocol}]'") from error
    except ValueError as error:
        raise UserError(f"{text}: {error}") from error
    return path


def is_local(path: Location) -> TypeIs[Path]:
    """Whether a path is one of this machine's file systems, shared ones among them."""
    return isinstance(path, Path)


def exists(path: Location) -> bool:
    """Whether a file or folder is there.

    Raises:
        OSError: that cannot be told.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def list_folder(folder: Location) -> dict[str, bool]:
    """The names in a folder, each with whether it is a folder; nothing where there is no folder.

    Raises:
        OSError: it cannot be listed.
    """
    try:
        if is_local(folder):
            with os.scandir(folder) as entries:
                return {entry.name: entry.is_dir() for entry in entries}
        infos = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    return {info["name"].rstrip("/").rpartition("/")[2]: info["type"] == "directory" for info in infos}


def arrow_source(path: Location) -> str | BinaryIO:
    """What pyarrow opens a file by.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it cannot be opened.
    """
    return str(path) if is_local(path) else path.open("rb")


def stamps(folder: Location) -> dict[str, str | None]:
    """The files of a folder by name, each with a stamp that is another once its content is another.

    An object's stamp is its entity tag, a file's is size, times and inode. A file changed less than
    ``SETTLED_S`` ago has None: clocks tick, and it may be changed again within the tick.

    Raises:
        OSError: the folder is there and cannot be listed.
    """
    settled = time.time_ns() - round(SETTLED_S * 1e9)
    found: dict[str, str | None] = {}
    try:
        if not is_local(folder):
            objects = folder.fs.ls(folder.path, detail=True)
            return {info["name"].rpartition("/")[2]: info.get("ETag") or info.get("etag") for info in objects}
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # its writer has just renamed it
                    continue
                modified, changed = stat.st_mtime_ns, stat.st_ctime_ns
                stamp = f"{stat.st_size} {modified} {changed} {stat.st_ino}"
                found[entry.name] = stamp if modified <= settled and changed <= settled else None
    except FileNotFoundError:
        return {}
    return found


@contextmanager
def named(path: Location) -> Iterator[None]:
    """Have errors of the system name the file, as those of an open file do not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def reached(location: Location) -> Iterator[None]:
    """Say what is wrong where an object store cannot be reached: each store has errors of its own.

    Raises:
        UserError: it could not.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if is_local(location):
            raise
        raise UserError(
            f"{location} cannot be reached: {type(error).__name__}: {error} (credentials and endpoint come "
            "from the environment, such as AWS_PROFILE and AWS_ENDPOINT_URL)"
        ) from error
