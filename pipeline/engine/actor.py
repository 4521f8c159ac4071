"""The worker's side of Ray: a ``Worker`` in a process of its own, and what it answers.

Ray is not imported here: the driver makes an actor of the class.
"""

import os
import signal
import socket
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.engine.guarded import FatalError
from pipeline.engine.jobs import Job, Result, Unit
from pipeline.engine.losses import Died
from pipeline.engine.worker import Worker
from pipeline.errors import StageError, UserError, describe, input_output_error
from pipeline.store.location import exists


@dataclass(frozen=True)
class Stopped:
    """A worker's answer if the stage cannot continue. It is text, because some exceptions cannot be sent."""

    message: str
    details: str = ""
    user: bool = False
    """Whether the cause is the input or a file, and not the stage."""

    def error(self) -> StageError | UserError:
        return UserError(self.message) if self.user else StageError(self.message, self.details)


class Actor:
    """A ``Worker`` in its own process. A unit can arrive twice: its commit is idempotent."""

    def __init__(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"node {socket.gethostname()} has no {folder}: the driver's folder, with its code, weights "
                "and prompts, must lie on a path that every node of the cluster shares"
            )
        os.chdir(folder)

    def take(self, job: Job) -> Stopped | None:
        """Switch to ``job``. The models of the previous job are dropped."""
        try:
            _end_by_signals()
            if exists(job.folder.plan):
                self._worker = Worker(job, watched=True)
                return None
        except BaseException as error:
            return _stopped(f"{job.step.name} could not start", error)
        return Stopped(
            f"{job.step.name}: node {socket.gethostname()} does not see {job.folder.root}: let the "
            "manifest's key 'runs' name a path that every node shares, or s3://"
        )

    def run(self, unit: Unit, ahead: Sequence[Unit] = ()) -> Result | Stopped | Died:
        try:
            return self._worker.run(unit, ahead)
        except FatalError as error:
            return Died(str(error), by_itself=True)
        except BaseException as error:
            return _stopped(f"{self._worker.job.step.name}, unit {unit.number}", error)


def _end_by_signals() -> None:
    """Let signals end this process. Ray's own handler would raise an exception inside a row."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))


def _stopped(what: str, error: BaseException) -> Stopped:
    if isinstance(error, OSError):
        error = input_output_error(error)
    if isinstance(error, UserError):
        return Stopped(str(error), user=True)
    if isinstance(error, StageError):
        return Stopped(str(error), error.details)
    stage_error = StageError(f"{what}: {describe(error)}", traceback.format_exc())
    return Stopped(str(stage_error), stage_error.details)
