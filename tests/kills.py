"""Kills, a thousand and more: does a run of cheap stages end whole after each?

    python -m tests.kills --kills 1000        # with `make chaos`

Most are of a driver that runs all stages itself, at one certain call to the system: before a rename, in an
fsync, in the middle of an event's line. The others are of Ray's processes, at a random moment. After each the
same command is given again; then every file must be the undisturbed run's to the byte, the ledger exact, and
nothing left behind.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from pipeline.errors import UserError
from pipeline.views.run import open_state
from tests.pipeline.faulty_disk import FaultyDisk
from tests.pipeline.runs import ROOT, FakeRun, assert_sum_is_exact

CAPTIONS = [f"a red cube number {i}" for i in range(10)]
KEYS: dict[str, object] = {
    "rows_per_part": 4,
    "write": {"batch": 4},
    "draw": {"pause": 0.01, "resources": {"workers": 2}},
}
SHARE_OF_RAY = 0.1
"""Of all kills; each takes as long as Ray takes to start twice."""
PATIENCE = 300.0


class Killer(FaultyDisk):
    """Kills the process at a call; of what is being written, half is on the disk."""

    def strike(self, what: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def calls_of_a_run(folder: Path) -> list[str]:
    """What a whole run calls, in order."""
    run = FakeRun(folder, CAPTIONS, **KEYS)
    disk = FaultyDisk(folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        run.generate()
    return disk.calls


def kill_at(run: FakeRun, at: int) -> bool:
    """Run ``generate`` in a process of its own that is killed at a call; whether it was."""
    child = os.fork()
    if not child:
        try:
            with pytest.MonkeyPatch.context() as patch:
                Killer(run.folder / "runs", at).install(patch)
                run.generate()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kill_a_process_of_ray(run: FakeRun, rng: random.Random) -> bool:
    """Kill a worker, the raylet or the driver at a random moment of a run on Ray."""
    driver = run.driver(engine="ray")
    named = rng.choice(["ray::", "ray::", "ray::", "raylet/raylet", ""])
    deadline = time.monotonic() + PATIENCE
    while named and driver.poll() is None and not _processes(run, named):
        assert time.monotonic() < deadline, f"no process named {named}"
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 2 if named else 8))
    killed = False
    there = _processes(run, named) if named else [driver.pid]
    if there and driver.poll() is None:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(there), signal.SIGKILL)
            killed = True
    driver.wait(PATIENCE)
    return killed


def _processes(run: FakeRun, named: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            mark = f"FAKE_SWITCHES={run.folder}".encode()
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if named in command and mark in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


def verdict(run: FakeRun, whole: dict[str, bytes]) -> str:
    """What is wrong in the end; empty if nothing is."""
    with suppress(UserError):  # killed before there was a plan or a lock file
        assert_sum_is_exact(open_state(run.run))
    assert_sum_is_exact(run.generate())
    if run.files() != whole:
        return "files differ"
    left = list(Path(run.run).rglob(".editpairs-*"))
    return f"{left[0].name} was left" if left else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--of-ray", type=int, help="how many of them; default: a tenth")
    options = parser.parse_args()
    os.chdir(ROOT)
    console, rng = Console(), random.Random(0)
    wrong: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="editpairs-kills-") as name,
        Progress(console=console) as progress,
    ):
        folder = Path(name)
        calls = calls_of_a_run(folder / "calls")
        whole = FakeRun(folder / "whole", CAPTIONS, **KEYS)
        whole.generate()
        of_ray = round(options.kills * SHARE_OF_RAY) if options.of_ray is None else options.of_ray
        console.print(
            f"{len(calls)} calls a run; {options.kills - of_ray} kills at calls, {of_ray} of Ray's processes"
        )
        kills = 0
        for number in progress.track(range(options.kills), description="killing"):
            run = FakeRun(folder / f"run-{number}", CAPTIONS, **KEYS)
            if number < options.kills - of_ray:
                at = number % len(calls) + 1
                what, killed = calls[at - 1], kill_at(run, at)
            else:
                os.environ["FAKE_SWITCHES"] = str(run.folder)
                what, killed = "Ray", kill_a_process_of_ray(run, rng)
            kills += killed
            try:
                bad = verdict(run, whole.files())
            except Exception as error:
                bad = f"{type(error).__name__}: {error}"
            if bad:
                wrong.append(f"{number} ({what}): {bad}")
                console.print(wrong[-1], markup=False)
            shutil.rmtree(run.folder)
    console.print(f"{kills} kills, {options.kills - len(wrong)} of {options.kills} ended whole")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
