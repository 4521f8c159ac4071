"""Waits that end on an event: a slow machine makes a test slow, and never makes it fail."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

from pipeline.store.location import list_folder
from tests.pipeline.runs import FakeRun


def wait_for(happened: Callable[[], Any], process: subprocess.Popen | None = None) -> None:
    """Return once something has happened; fail if the process that brings it about ends before."""
    while not happened():
        ended = process is not None and process.poll() is not None
        assert not ended or happened(), f"the process ended before, with exit code {process.returncode}"
        time.sleep(0.01)


def wait_for_files(run: FakeRun, stage: str, count: int, process: subprocess.Popen) -> None:
    """Return once the process has committed ``count`` files of a stage."""
    folder = run.run / stage
    wait_for(lambda: sum(name.endswith(".parquet") for name in list_folder(folder)) >= count, process)
