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
import shutil
import subprocess
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.faults import FAULTS, PATIENCE, Trial
from pipeline.engine.ledger import count_run
from pipeline.views.run import open_state


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
