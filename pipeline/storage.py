"""Where runs and captions lie: a local or shared folder, or an object store (``s3://bucket/folder``).

Both are paths with pathlib's methods (universal_pathlib, over fsspec); what is not the same for both is
here. Credentials and endpoints of an object store come from the environment (``AWS_PROFILE``,
``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...), so no file of a run can hold them.
"""

import json
import os
import socket
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


def locate(location: str | os.PathLike | UPath) -> Location:
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


def arrow_source(path: Location) -> str | BinaryIO:
    """What pyarrow opens a file by.

    Raises:
        FileNotFoundError: it is not there.
    """
    return str(path) if is_local(path) else path.open("rb")


def stamps(folder: Location) -> dict[str, str | None]:
    """The files of a folder by name, each with a stamp that is another once its content is another.

    An object's stamp is its entity tag, a file's is size, times and inode. A file changed less than
    ``SETTLED_S`` ago has None: clocks tick, and it may be changed again within the tick.
    """
    if not is_local(folder):
        objects = folder.fs.ls(folder.path, detail=True) if folder.exists() else []
        return {info["name"].rpartition("/")[2]: info.get("ETag") or info.get("etag") for info in objects}
    settled = time.time_ns() - round(SETTLED_S * 1e9)
    found: dict[str, str | None] = {}
    for entry in os.scandir(folder) if folder.exists() else []:
        try:
            stat = entry.stat()
        except FileNotFoundError:  # its writer has just renamed it
            continue
        modified, changed = stat.st_mtime_ns, stat.st_ctime_ns
        stamp = f"{stat.st_size} {modified} {changed} {stat.st_ino}"
        found[entry.name] = stamp if modified <= settled and changed <= settled else None
    return found


class NewFile:
    """A file that is there wholly or not at all: nobody sees it before ``commit``.

    Locally it is written beside its place and renamed; an object store shows an object once it is
    complete. Has the part of Python's file protocol that Arrow calls.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        self._written = path
        if is_local(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._written = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self._file = self._written.open("wb")

    def write(self, data: bytes) -> int:
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
        if is_local(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if is_local(self._path):
            os.replace(str(self._written), self._path)
            _sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Leave nothing behind."""
        if is_local(self._path):
            self._file.close()
            self._written.unlink(missing_ok=True)
        else:
            self._file.discard()  # type: ignore[attr-defined]


def write_text(path: Location, text: str) -> None:
    """Replace a file's content wholly or not at all."""
    file = NewFile(path)
    try:
        file.write(text.encode("utf-8"))
    except BaseException:
        file.abandon()
        raise
    file.commit()


@contextmanager
def held(folder: Location) -> Iterator[None]:
    """Hold a folder for this process.

    Locally the lock goes with the process, however it ends. In an object store it is an object that a
    killed process leaves behind: one of this machine is taken over, of another it is named.

    Raises:
        UserError: another process holds it.
    """
    if is_local(folder):
        with _file_lock(folder):
            yield
        return
    lock: UPath = folder / ".lock"
    owner = {"host": socket.gethostname(), "pid": os.getpid()}
    while not _created(lock, json.dumps(owner)):
        holder = _holder(lock)
        if holder is not None and (holder.get("host") != owner["host"] or _alive(holder.get("pid"))):
            raise UserError(
                f"{folder} is being written by process {holder.get('pid')} on {holder.get('host')}: wait "
                f"for it, or use another run name (--set name=...). If it is dead, delete {lock}"
            )
        lock.unlink(missing_ok=True)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


@contextmanager
def _file_lock(folder: Path) -> Iterator[None]:
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{folder} is being written by process {holder}: wait for it, stop it, or use "
                "another run name (--set name=...)"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _created(lock: UPath, content: str) -> bool:
    """Create an object unless it is there; the store decides between two who try."""
    try:
        with reached(lock):
            lock.fs.pipe_file(lock.path, content.encode(), mode="create")
    except FileExistsError:
        return False
    return True


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


def _holder(lock: UPath) -> dict | None:
    """Who holds a lock; None if it has just been given back."""
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
