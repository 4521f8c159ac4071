"""Commands of editpairs that need a process of their own."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence

from tests.waiting import wait_for


def started(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """``editpairs`` with these arguments."""
    command = [sys.executable, "-m", "pipeline.cli", *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def review(words: Sequence[str], environment: Mapping[str, str]) -> tuple[str, int]:
    """A review: read the page that it serves, then press Ctrl-C. Returns its output and exit code."""
    process = started(words, environment)
    assert process.stdout is not None
    said: list[str] = []
    while not (said and "http://" in said[-1]):
        said.append(process.stdout.readline())
        wait_for(lambda: said[-1], process)
    with urllib.request.urlopen(said[-1].strip()) as answer:
        assert b"<html" in answer.read()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate()
    return "".join(said) + rest, process.returncode
