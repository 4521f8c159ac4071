"""Locations of runs, captions and exports: a local or shared folder, or a URL.

A URL names an object store (``s3://bucket/folder``, ``gs://bucket/folder``) or a repository of the Hugging
Face Hub (``hf://datasets/owner/name/folder``). All kinds are paths with pathlib's methods (universal_pathlib
over fsspec). This module holds the operations that differ between them. Credentials and endpoints come from
the environment (``AWS_PROFILE``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``HF_TOKEN``, ...), so no file of a
run can contain them.

A file counts as missing only if the system raises ``FileNotFoundError``. Every other error is raised.
pathlib's and fsspec's own ``exists`` and ``glob`` treat an unreadable path as missing, so they are not used.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

from fsspec import available_protocols
from fsspec.spec import AbstractBufferedFile
from typing_extensions import TypeIs
from upath import UPath

from pipeline.errors import StageError, UserError

Location: TypeAlias = Path | UPath
SETTLED_S = 2.0
"""Seconds: the coarsest timestamp of the file systems in use."""
EXTRAS = ("gs", "s3")
"""Protocols that an extra of this package installs."""
_NUMBERS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}
_ENVIRONMENT = {
    "s3": "such as AWS_PROFILE and AWS_ENDPOINT_URL",
    "gs": "such as GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN or hf auth login, and HF_ENDPOINT",
}


def _ignore(_file: AbstractBufferedFile) -> None:
    """In place of fsspec's ``__del__``, which uploads an open file when the collector finds it.

    That would also upload what has failed or was given up. At the end of the process it would wait for ever,
    for a thread that has ended.
    """


setattr(AbstractBufferedFile, "__del__", _ignore)  # noqa: B010 - mypy takes no assignment to a method


def locate(location: str | os.PathLike[str] | UPath) -> Location:
    """The path for a location given in a manifest or on the command line.

    Raises:
        UserError: the protocol is unknown or mistyped, its package is not installed, no bucket or no user is
            named, or the URL holds a password or a query.
    """
    if isinstance(location, Path | UPath):
        return location
    text = os.fspath(location)
    if "\0" in text:
        raise UserError(f"{text!r}: a path cannot contain a zero byte")
    protocol, colon, rest = text.partition(":")
    if "://" not in text:
        if colon and protocol.lower() in available_protocols():
            raise UserError(
                f"{text}: a URL is {protocol.lower()}://...; a local path of this name is ./{text}"
            )
        return _at_home(text)
    _refuse_secrets(text)
    if protocol in ("file", "local"):
        return Path(text.partition("://")[2])
    if protocol == "memory" or "::" in text.partition("://")[0]:
        raise UserError(f"{text}: what is written there would be lost; name a folder or an object store")
    if rest == "//" or rest.startswith("///"):
        raise UserError(f"{text}: name a bucket or a host, such as {protocol}://bucket/folder")
    try:
        path = UPath(text, use_listings_cache=False)  # other processes write to the store too
        path.fs  # noqa: B018 - imports the protocol's package, and may connect to a server
    except ImportError as error:
        how = f"; pip install 'editpairs[{protocol}]'" if protocol in EXTRAS else ""
        raise UserError(f"{text}: {error}{how}") from error
    except Exception as error:  # each protocol raises its own kinds
        raise UserError(f"{text}: {error}") from error
    if is_local(path):
        raise UserError(f"{text}: there is no protocol {protocol!r}")
    return path


def _at_home(text: str) -> Path:
    """A local path with ``~`` expanded: a shell leaves it alone in quotes and in ``--out=~/x``."""
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise UserError(f"{text}: there is no user {text.partition('/')[0]}; a path of this name is ./{text}")
    return Path(path)


def _refuse_secrets(url: str) -> None:
    """Raise without quoting the URL: it would be written to the run's folder and to reports."""
    protocol, _, rest = url.partition("://")
    if "@" in rest.partition("/")[0]:
        what = "no user and no password"
    elif protocol in ("http", "https") and ("?" in rest or "#" in rest):
        what = "no query and no fragment"
    else:
        return
    raise UserError(
        f"a URL of {protocol}:// may hold {what}: it is written to the run's folder and to reports; "
        "credentials come from the environment"
    )


def is_local(path: Location) -> TypeIs[Path]:
    """Whether a path lies in this machine's file system (mounted shared folders included)."""
    return isinstance(path, Path)


def exists(path: Location) -> bool:
    """Whether a file or folder exists.

    Raises:
        OSError: the system cannot tell.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def list_folder(folder: Location) -> dict[str, bool]:
    """The names in a folder, each with whether it is a folder itself; empty if the folder is missing.

    A link that leads nowhere, or in a circle, is no folder.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        if is_local(folder):
            with os.scandir(folder) as entries:
                return {entry.name: _is_folder(entry) for entry in entries}
        infos = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    return {info["name"].rstrip("/").rpartition("/")[2]: info["type"] == "directory" for info in infos}


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def arrow_source(path: Location) -> str | BinaryIO:
    """A source that pyarrow can open: a path, or an open file of an object store.

    Raises:
        FileNotFoundError: the file is missing.
        OSError: the file cannot be opened.
    """
    return str(path) if is_local(path) else path.open("rb")


def stamps(folder: Location) -> dict[str, str | None]:
    """The files in a folder with a stamp each. If a file's content changes, its stamp changes.

    An object's stamp is its entity tag. A local file's stamp combines size, times and inode. The stamp is
    None for a file changed less than ``SETTLED_S`` seconds ago: it could change again within one clock tick.

    Raises:
        OSError: the folder exists and cannot be listed.
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
                except FileNotFoundError:  # a temporary file that was just renamed
                    continue
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    continue
                modified, changed = stat.st_mtime_ns, stat.st_ctime_ns
                stamp = f"{stat.st_size} {modified} {changed} {stat.st_ino}"
                found[entry.name] = stamp if modified <= settled and changed <= settled else None
    except FileNotFoundError:
        return {}
    return found


@contextmanager
def named(path: Location) -> Iterator[None]:
    """Add the file name to system errors: those of an open file have none, those of a store no number."""
    try:
        yield
    except OSError as error:
        number = error.errno or _NUMBERS.get(type(error))
        if number is None or error.filename is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


@contextmanager
def reached(location: Location) -> Iterator[None]:
    """Raise one kind of error if an object store cannot be reached; each store raises its own kinds.

    Raises:
        UserError: the store cannot be reached.
    """
    try:
        yield
    except (UserError, StageError, OSError):
        raise
    except Exception as error:
        if is_local(location):
            raise
        raise UserError(
            f"{location} cannot be reached: {type(error).__name__}: {error} (credentials and endpoint come "
            f"from the environment, {_ENVIRONMENT.get(str(location.protocol), 'as its package says')})"
        ) from error
