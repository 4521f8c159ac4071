"""The first moments of the process: its streams, and Ctrl-C while the commands are imported."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STREAMS = ("stdin", "stdout", "stderr")


def open_streams() -> None:
    """Open the standard streams that the process was started without, on the null device.

    Otherwise the next file that is opened gets their number, and what a library prints is written into it.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115 - until the end


@contextmanager
def ending_quietly() -> Iterator[None]:
    """Inside the block, Ctrl-C ends the process with a message instead of an import's traceback."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("\nstopped; nothing was begun\n")
    raise SystemExit(128 + number)
