"""Signals that end the process, kept apart from exceptions raised by a row's code.

A row's code can raise KeyboardInterrupt or SystemExit itself; then only this row fails. Ctrl-C and SIGTERM
come from outside and end the run. Both kinds reach the row as exceptions, so the signal is recorded as well.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)

_received: int | None = None


@contextmanager
def heeded() -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM raise KeyboardInterrupt, and ``received`` returns the signal.

    Blocks can be nested. The block has no effect outside the main thread, because Python delivers no signals
    there, and for a signal that this process was started to ignore.
    """
    global _received
    if threading.current_thread() is not threading.main_thread() or _is_heeded():
        yield
        return
    _received = None
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received = None


def _is_heeded() -> bool:
    """Whether an outer block heeds a signal. One of the two may be ignored, so both are asked."""
    return any(signal.getsignal(number) is _note for number in ENDING)


def received() -> int | None:
    """The signal that is ending this process, or None."""
    return _received


def check() -> None:
    """Raise if a signal has arrived. Code that catches all exceptions may have swallowed the first one.

    Raises:
        KeyboardInterrupt: a signal has arrived.
    """
    if _received is not None:
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number
    raise KeyboardInterrupt
