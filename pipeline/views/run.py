"""Opening an existing run from its own files, for commands that read it."""

import difflib
from contextlib import suppress

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.lockfile import locked_steps, read_lock
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location, exists, is_local, list_folder, reached
from pipeline.store.plan import read_plan


def open_state(folder: str | Location) -> RunState:
    """The state of a run according to its lock file. No stage is imported.

    Raises:
        OSError: the plan or the lock file cannot be read.
        UserError: there is no run, or its plan or lock file is missing or damaged.
    """
    run = RunFolder(folder)
    with reached(run.root):
        plan, lock = read_plan(run.plan), read_lock(run.lock)
    if plan is None and not lock:
        hint = near_runs(run.root) or ": name a run's folder, such as runs/toybox"
        raise UserError(f"there is no run at {folder}{hint}")
    if plan is None:
        raise UserError(f"{run.plan} is missing: put a copy back; without it no row of the run can be told")
    if not lock:
        raise UserError(f"{run.lock} is missing: give the run's generate command again, which writes it anew")
    return RunState(run, plan, locked_steps(lock))


def has_begun(folder: str | Location) -> bool:
    """Whether a run's plan and lock file are there, so that it can be opened.

    Raises:
        OSError, UserError: as ``open_state``; also where one of them is missing and the run has parts.
    """
    run = RunFolder(folder)
    with reached(run.root):
        return run.has_parts() or (exists(run.plan) and exists(run.lock))


def near_runs(root: Location) -> str:
    """Asks after the runs beside ``root``, or in ``runs`` there, with names near to its own; or empty."""
    if not is_local(root):
        return ""
    runs: dict[str, str] = {}
    for folder in (root.parent, root.parent / "runs"):
        with suppress(OSError):  # only a hint: the folder can be another user's, or a file
            names = list_folder(folder)
            runs |= {n: str(folder / n) for n in names if (folder / n / "plan.parquet").is_file()}
    near = [runs[name] for name in difflib.get_close_matches(root.name, sorted(runs), n=2)]
    return f": did you mean {' or '.join(near)}?" if near else ""
