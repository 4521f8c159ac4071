"""Opening an existing run from its own files, for commands that read it."""

from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.lockfile import locked_steps, read_lock
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location, reached
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
        raise UserError(f"there is no run at {folder}: name a run's folder, such as runs/toybox")
    if plan is None:
        raise UserError(f"{run.plan} is missing: put a copy back; without it no row of the run can be told")
    if not lock:
        raise UserError(f"{run.lock} is missing: give the run's generate command again, which writes it anew")
    return RunState(run, plan, locked_steps(lock))
