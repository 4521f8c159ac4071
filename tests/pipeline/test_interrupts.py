"""A signal ends the run; a KeyboardInterrupt that a row raises does not."""

import os
import signal
import threading

import pytest

from pipeline import interrupts


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_signal_is_raised_and_noted_and_what_was_is_back_afterwards(number):
    before = signal.getsignal(number)
    with interrupts.heeded():
        interrupts.check()
        with interrupts.heeded():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            assert interrupts.received() == number
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()  # who caught the exception does not go on
    assert signal.getsignal(number) is before
    assert interrupts.received() is None
    interrupts.check()


def test_one_that_the_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.heeded():
            os.kill(os.getpid(), signal.SIGINT)
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_changed():
    before, seen = signal.getsignal(signal.SIGINT), []

    def look():
        with interrupts.heeded():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
