"""Random faults during toybox runs. After each fault the run must end with the bytes of an undisturbed run.

    python -m benchmarks.chaos --faults 30          # make chaos N=30
    python -m benchmarks.chaos --trial 17           # repeat one trial

Each trial copies a finished small run and deletes the files of a random stage and of all later stages, in
random parts. It starts the real command on a real Ray, injects a fault at a random moment, and then repeats
the command until it succeeds. Afterwards every part and shard must equal the undisturbed run's bytes, the
counts must be exact, and no process or temporary file may be left. Faults that need a small or read-only disk
mount a tmpfs. They are skipped where mounting is not allowed.
"""

import argparse
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

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pipeline.engine.ledger import count_run
from pipeline.store.new_file import temporary
from pipeline.views.run import open_state
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


def judge(trial: Trial, whole: dict[str, bytes]) -> str:
    """Describe what is wrong after the trial; empty if nothing is wrong."""
    for _ in range(3):
        driver = trial.start()
        if driver.wait(PATIENCE) == 0:
            break
    else:
        return f"the command does not end well: exit code {driver.returncode}"
    files = files_of(trial.run)
    differing = sorted({*files, *whole} - {name for name in files if files[name] == whole.get(name)})
    if differing:
        return f"{len(differing)} files differ, first {differing[0]}"
    for count in count_run(open_state(str(trial.run))):
        judged = count.kept.total() + count.rejected.total() + count.failed.total()
        if count.pending.total() or judged != count.given.total():
            return f"the ledger of {count.name} is not exact"
    left = list(trial.folder.rglob("*.tmp"))
    if left:
        return f"{left[0].name} was left"
    deadline = time.monotonic() + PATIENCE
    while trial.processes():
        if time.monotonic() > deadline:
            return f"processes are left: {trial.processes()}"
        time.sleep(0.5)
    return ""


def files_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*.parquet")}


def may_mount(folder: Path) -> bool:
    """Whether this process can mount a tmpfs here."""
    probe = folder / "probe"
    probe.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", probe], capture_output=True)
    return done.returncode == 0 and subprocess.run(["umount", probe]).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--faults", type=int, default=30, help="how many trials")
    parser.add_argument("--trial", type=int, help="only this one")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/editpairs-chaos"), help="of the runs")
    options = parser.parse_args()
    folder, console = options.folder.resolve(), Console()
    shutil.rmtree(folder, ignore_errors=True)
    disks = may_mount(folder)
    names = [name for name in FAULTS if disks or "disk" not in name]
    started = time.monotonic()
    undisturbed = Trial(folder / "whole", -1, 0)
    undisturbed.folder.mkdir(parents=True)
    if undisturbed.start().wait(4 * PATIENCE):
        raise SystemExit(f"the undisturbed run failed: see {folder}/whole.log")
    seconds, whole = time.monotonic() - started, files_of(undisturbed.run)
    console.print(f"undisturbed: {len(whole)} files in {seconds:.0f} s")
    numbers = range(options.faults) if options.trial is None else [options.trial]
    table, wrong = Table("trial", "fault", "seconds", "in the end"), 0
    with Progress(console=console) as progress:
        for number in progress.track(numbers, description="striking"):
            fault = names[number % len(names)]
            trial = Trial(folder / f"trial-{number}", number, 0.7 * seconds)
            shutil.copytree(undisturbed.folder, trial.folder)
            began = time.monotonic()
            trial.lose()
            FAULTS[fault](trial)
            verdict = judge(trial, whole)
            wrong += bool(verdict)
            console.print(f"{number:3d} {fault}: {verdict or 'the same bytes'}")
            table.add_row(
                str(number), fault, f"{time.monotonic() - began:.0f}", verdict or "the same bytes",
                style="bold red" if verdict else None,
            )  # fmt: skip
            if "disk" in fault:
                subprocess.run(["umount", trial.folder], check=False)
            if not verdict:
                shutil.rmtree(trial.folder)
    console.print(table)
    console.print(f"{len(numbers) - wrong} of {len(numbers)} ended as the undisturbed run")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
