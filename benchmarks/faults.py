"""The faults of :mod:`benchmarks.chaos`: what happens to a run, at a random moment."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.store.new_file import temporary
from stages import STAGES

ROOT = Path(__file__).parents[1]
SETTINGS = [
    *("name=small", "rows=8", "rows_per_part=2", "diffusion.steps=10", "edit.batch=2", "source.batch=2"),
    "shards.parts_per_shard=2",
]
MARK = "EDITPAIRS_CHAOS"
"""Environment variable that marks the processes of a trial."""
PATIENCE = 300.0
"""Longest time in seconds for a command to finish, or for a killed run's processes to end."""


class Trial:
    """One copy of the finished run, with one fault."""

    def __init__(self, folder: Path, number: int, seconds: float) -> None:
        self.folder, self.number, self.seconds = folder, number, seconds
        self.run = folder / "small"
        self.rng = random.Random(f"chaos {number}")

    def start(self) -> subprocess.Popen:
        sets = [part for key in (f"runs={self.folder}", *SETTINGS) for part in ("--set", key)]
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "generate", "manifests/toybox.yaml", *sets],
            cwd=ROOT,
            env={**os.environ, MARK: str(self.folder), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=(self.folder.parent / f"{self.folder.name}.log").open("ab"),
        )

    def lose(self) -> None:
        """Delete the output of a random stage and the stages after it, in some parts."""
        names = [name for name, stage in STAGES.items() if not stage.needs_section]
        lost = names[self.rng.randrange(len(names) - 1) :]
        parts = sorted((self.run / names[0]).glob("*.parquet"))
        for part in self.rng.sample(parts, self.rng.randint(1, len(parts))):
            for name in lost:
                (self.run / name / part.name).unlink(missing_ok=True)
        shutil.rmtree(self.run / "shards")

    def wait(self) -> None:
        """Wait for a random moment of the run."""
        time.sleep(self.rng.uniform(0, self.seconds))

    def a_file(self) -> Path:
        return self.rng.choice(sorted(self.run.glob("*/*.parquet")))

    def processes(self, named: str = "") -> list[int]:
        """The trial's processes whose command line contains ``named``."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (path / "environ").read_bytes().split(b"\0")
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{MARK}={self.folder}".encode() in environment and named in command:
                    found.append(int(path.name))
        return found


def _signal_driver(number: signal.Signals) -> Callable[[Trial], None]:
    def strike(trial: Trial) -> None:
        driver = trial.start()
        trial.wait()
        driver.send_signal(number)
        driver.wait(PATIENCE)

    return strike


def _kill(named: str) -> Callable[[Trial], None]:
    def strike(trial: Trial) -> None:
        driver = trial.start()
        trial.wait()
        while driver.poll() is None and not (there := trial.processes(named)):
            time.sleep(0.2)
        if driver.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(trial.rng.choice(there), signal.SIGKILL)
        driver.wait(PATIENCE)

    return strike


def _truncate(trial: Trial) -> None:
    path = trial.a_file()
    os.truncate(path, trial.rng.randrange(path.stat().st_size))


def _foreign(trial: Trial) -> None:
    path = trial.a_file()
    others = [other for other in sorted(path.parent.glob("*.parquet")) if other != path]
    shutil.copy(trial.rng.choice(others), path)


def _stale_temporary(trial: Trial) -> None:
    path = trial.a_file()
    temporary(path, "0af3").write_bytes(os.urandom(1000))


def _moved_clock(trial: Trial) -> None:
    for path in trial.run.rglob("*.parquet"):
        moved = time.time() + trial.rng.uniform(-1e6, 1e6)
        os.utime(path, (moved, moved))


def _second_driver(trial: Trial) -> None:
    first = trial.start()
    time.sleep(trial.rng.uniform(2, 6))
    second = trial.start()
    if second.wait(PATIENCE) == 0 and first.wait(PATIENCE) == 0:
        return  # the second driver ran after the first one
    first.wait(PATIENCE)


def _mounted(trial: Trial, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", trial.folder], check=True)


def _disk(options: str, then: str) -> Callable[[Trial], None]:
    """Move the run to a disk that is too small or read-only, and later make the disk usable again."""

    def strike(trial: Trial) -> None:
        kept = trial.folder.with_name(f"{trial.folder.name}-kept")
        shutil.move(trial.folder, kept)
        trial.folder.mkdir()
        size = sum(path.stat().st_size for path in kept.rglob("*")) // 1024
        _mounted(trial, "size=1g")
        shutil.copytree(kept, trial.folder, dirs_exist_ok=True)
        shutil.rmtree(kept)
        room = size + trial.rng.randrange(100, 300)
        subprocess.run(["mount", "-o", f"remount,{options.format(room=room)}", trial.folder], check=True)
        trial.start().wait(PATIENCE)
        subprocess.run(["mount", "-o", f"remount,{then}", trial.folder], check=True)

    return strike


FAULTS: dict[str, Callable[[Trial], None]] = {
    "kill -9 of the driver": _signal_driver(signal.SIGKILL),
    "interrupt": _signal_driver(signal.SIGINT),
    "kill -9 of a worker": _kill("ray::"),
    "kill -9 of the raylet": _kill("raylet/raylet"),
    "a truncated file": _truncate,
    "a file of another part": _foreign,
    "a stale temporary file": _stale_temporary,
    "files dated otherwise": _moved_clock,
    "a second driver": _second_driver,
    "disk full": _disk("size={room}k", "size=1g"),
    "read-only disk": _disk("ro", "rw"),
}
