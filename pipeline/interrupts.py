"""The signals that end a process, told apart from what a row's code raises.

A row may raise KeyboardInterrupt or SystemExit by itself, and then it fails alone. Ctrl-C and SIGTERM
come from outside and end the run. Both arrive as exceptions within the row, so the signal is noted.
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
    """In here SIGINT and SIGTERM raise KeyboardInterrupt, and ``received`` tells of them.

    May be nested. Does nothing outside of the main thread, where Python delivers no signal, nor for a
    signal that this process was started to ignore.
    """
    global _received
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(ENDING[0]) is _note:
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


def received() -> int | None:
    """The signal that ends this process, if one has come."""
    return _received


def check() -> None:
    """Go on only if no signal has come: code that catches everything may have swallowed its exception.

    Raises:
        KeyboardInterrupt: one has come.
    """
    if _received is not None:
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number
    raise KeyboardInterrupt
