"""One writer per run: taking the lock of a run folder, and checking that it is still held."""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from pipeline.errors import UserError
from pipeline.store.files import remove
from pipeline.store.location import Location, is_local, reached

Check = Callable[[], None]
"""Raises UserError if this process no longer holds the lock."""
WAIT_S = 0.05
"""Seconds between two tries to take a lock that another process holds for a moment."""
_COPIED = "copied"
"""Key of a holder whose lock is the file of a run on a disk, copied to the store with the run."""
_LONGEST = 20
"""Most characters of a process id. Another program may have written something else."""


class HeldError(UserError):
    """Another process holds the lock."""


@contextmanager
def held(folder: Location) -> Iterator[Check]:
    """Lock a folder for this process.

    A local lock ends with its process, however the process ends. In an object store the lock is an object,
    and a killed process leaves it behind. This process takes the lock over if it can tell that the owner, on
    the same machine, is dead. Otherwise the error names the lock object to delete.

    Raises:
        HeldError: another process holds the lock.
        OSError: the folder cannot be written to.
    """
    if is_local(folder):
        with _file_lock(folder) as check:
            yield check
    else:
        with _object_lock(folder) as check:
            yield check


@contextmanager
def held_in_turn(folder: Location, patience_s: float = 30) -> Iterator[Check]:
    """Lock a folder whose lock every process holds for a moment only: wait for the others.

    Raises:
        HeldError: another process has held the lock for ``patience_s`` seconds.
        OSError: the folder cannot be written to.
    """
    until = time.monotonic() + patience_s
    with ExitStack() as stack:
        while True:
            try:
                check = stack.enter_context(held(folder))
                break
            except HeldError:
                if time.monotonic() > until:
                    raise
                time.sleep(WAIT_S)
        yield check


@contextmanager
def _file_lock(folder: Path) -> Iterator[Check]:
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    while True:
        with open(path, "a+", encoding="utf-8", errors="replace", opener=_itself) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read(_LONGEST).strip() or "unknown"
                raise HeldError(
                    f"{folder} is being written by process {holder}: wait for it, stop it, or use "
                    "another run name (--set name=...)"
                ) from None

            def check() -> None:
                if not _is_open_file(path, file.fileno()):
                    raise _lost(folder)

            if not _is_open_file(path, file.fileno()):
                continue  # the file was deleted between open and flock; another process may lock a new file
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield check
            return


def _itself(path: str, flags: int) -> int:
    """Open a file, not what a link of its name leads to: that is another program's, and would be emptied."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _is_open_file(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is still the open file: neither deleted nor replaced."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


@contextmanager
def _object_lock(folder: UPath) -> Iterator[Check]:
    if folder.protocol == "hf":  # it overwrites what it should create, and every small file would be a commit
        raise UserError(
            f"{folder}: no run is written to the Hub; write it elsewhere, then export and publish it"
        )
    lock: UPath = folder / ".lock"
    owner = _this_process()
    content = json.dumps(owner)
    while not _created(lock, content):
        holder = _holder(lock)
        if holder is not None:
            if not _is_dead(holder):
                pid, host = (holder.get(key, "unknown") for key in ("pid", "host"))
                raise HeldError(
                    f"{folder} is being written by process {pid} on {host}: wait for it, or use another run "
                    f"name (--set name=...). If it is dead, delete {lock}"
                )
            _remove_dead(lock, holder, content)

    def check() -> None:
        if _holder(lock) != owner:
            raise _lost(folder)

    try:
        yield check
    finally:
        if _holder(lock) == owner:
            remove(lock)


def _remove_dead(lock: UPath, holder: dict[str, Any], content: str) -> None:
    """Remove the lock of a dead process, unless another process is already removing it.

    Two processes can see the same dead holder. If both removed its lock, the second would remove the first
    one's new lock. Each process therefore claims the dead holder's token, and the store grants it to one.
    """
    claim = lock.with_name(f".lock-{holder.get('token', 'none')}")
    if not _created(claim, content):
        raise HeldError(
            f"{lock.parent} is being taken over by another process: wait for it, or use another run name "
            f"(--set name=...). If none is running, delete {claim}"
        )
    try:
        if _holder(lock) == holder:
            remove(lock)
    finally:
        remove(claim)


def _lost(folder: Location) -> UserError:
    return UserError(
        f"{folder}: the file .lock, by which this process holds the run, was deleted or replaced, so another "
        "process may write there too; this one stops. What was committed stays. Do not delete .lock; give "
        "the same command again once no other process runs"
    )


def _created(lock: UPath, content: str) -> bool:
    """Create an object if it does not exist. The store decides between concurrent attempts."""
    try:
        with reached(lock):
            lock.fs.pipe_file(lock.path, content.encode(), mode="create")
    except FileExistsError:
        return False
    return True


def _holder(lock: UPath) -> dict[str, Any] | None:
    """The holder recorded in a lock object; None if the lock was just released."""
    try:
        with reached(lock):
            written = lock.read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = json.loads(written)
    except ValueError:
        return {}
    if isinstance(content, int):
        return {_COPIED: content}
    return content if isinstance(content, dict) else {}


def _this_process() -> dict[str, Any]:
    """Identify this process. Host name and pid are not enough: containers can share both."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "machine": _machine(),
        "token": secrets.token_hex(8),
    }


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and its process has ended, or never held this lock."""
    if _COPIED in holder:
        return True
    pid = holder.get("pid")
    if holder.get("machine") != _machine() or not _machine() or not isinstance(pid, int):
        return False
    return _start_of(pid) != holder.get("started")


def _machine() -> str:
    """Boot id and pid namespace of this machine; empty if the system does not provide them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Start time of a process, in clock ticks since boot; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
