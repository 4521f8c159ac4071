"""Stages on Ray: one stage at a time over workers in actors, each given one unit at a time.

Pictures never travel through Ray. With ``ray_start`` the only file that imports ray, and only once a stage
is to run on it.
"""

import os
import signal
import socket
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engine.guarded import FatalError
from pipeline.engine.jobs import Job, Result, Unit
from pipeline.engine.losses import Died, Heartbeats, Losses
from pipeline.engine.ray_start import start_ray
from pipeline.engine.threads import thread_variables
from pipeline.engine.worker import Worker
from pipeline.errors import StageError, UserError, describe, reading
from pipeline.manifest.manifest import RayOptions
from pipeline.store.location import exists
from stages.base import Resources

STARTS = 3
"""How often workers may end before they take up the stage, none of them doing so."""
LOOK = 5.0
"""Seconds between two looks at the workers' heartbeats, at most."""
LONGEST_REASON = 500
"""Characters of what Ray says about a worker that ended."""


@dataclass(frozen=True)
class Stopped:
    """A worker's answer if the stage cannot go on. Text alone, for not every exception can be sent."""

    message: str
    details: str = ""
    user: bool = False
    """Whether the input is wrong or a file is not to be read or written, and not the stage."""

    def error(self) -> StageError | UserError:
        return UserError(self.message) if self.user else StageError(self.message, self.details)


class RayBackend:
    """Workers of a local Ray or a cluster.

    Workers without a GPU stay from stage to stage, for importing torch costs them more than many a
    stage of a small run. Those with one do not: only a process's end returns all memory of a GPU.
    """

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._started = False
        self._crew: list[Any] = []
        self._terms: Resources | None = None

    def run(self, job: Job, units: Sequence[Unit]) -> Iterator[Result]:
        """Yield each unit's result as its file is committed, in no particular order.

        Raises:
            StageError: a worker says so, or units were lost with their workers.
            UserError: the cluster lacks what ``<stage>.resources`` asks for.
        """
        self._start()
        import ray

        self._gather(job, min(job.config.resources.workers, len(units), self._room(job)))
        shared = _shared(job)
        waiting, starts, lost = deque(units), 0, dict[int, str]()
        busy: dict[Any, tuple[Any, Unit | None]] = {w.take.remote(shared): (w, None) for w in self._crew}
        hearts, losses = Heartbeats(job), Losses(job)
        look = min(LOOK, job.config.resources.hang_seconds / 2)
        while busy:
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=look)
            hanging = [ref for ref, (_, unit) in busy.items() if unit and hearts.hangs(unit.number)]
            if not ready and not hanging:
                continue
            reference = ready[0] if ready else hanging[0]
            worker, unit = busy.pop(reference)
            outcome = _outcome(reference) if ready else _hung(job)
            if isinstance(outcome, Stopped):
                raise outcome.error()
            if isinstance(outcome, Result):
                yield outcome
            if isinstance(outcome, Died):
                self._dismiss(worker)
                if unit is None:
                    starts += 1
                    if starts >= STARTS:
                        raise StageError(f"{job.step.name}: no worker starts: {outcome.reason}")
                elif (again := losses.again(unit, outcome)) is not None:
                    waiting.append(again)
                else:
                    lost[unit.number] = outcome.reason
                if waiting:
                    worker = self._hire()
                    busy[worker.take.remote(shared)] = worker, None
                continue
            starts = 0
            if waiting:
                unit = waiting.popleft()
                hearts.begin(unit.number)
                busy[worker.run.remote(unit)] = worker, unit
        if lost:
            raise StageError(_told(job, lost))

    def close(self) -> None:
        if self._started:
            import ray

            ray.shutdown()
            self._started, self._crew = False, []

    def _gather(self, job: Job, count: int) -> None:
        """Have ``count`` workers on the job's terms, and no others."""
        terms = job.config.resources.model_copy(update={"workers": 1})
        keep = count if terms == self._terms and not terms.gpus else 0
        for worker in self._crew[keep:]:
            self._dismiss(worker)
        self._terms = terms
        while len(self._crew) < count:
            self._hire()

    def _hire(self) -> Any:
        import ray

        terms = self._terms
        assert terms is not None
        asked = {"num_gpus": terms.gpus, "num_cpus": 0} if terms.gpus else {"num_cpus": terms.cpus}
        environment = {"env_vars": thread_variables(terms.threads)}
        worker = ray.remote(_Actor).options(runtime_env=environment, **asked).remote(os.getcwd())
        self._crew.append(worker)
        return worker

    def _dismiss(self, worker: Any) -> None:
        import ray

        self._crew.remove(worker)
        ray.kill(worker)

    def _start(self) -> None:
        if not self._started:
            start_ray(self._options)
            self._started = True

    def _room(self, job: Job) -> int:
        """How many workers of a stage the cluster has room for."""
        import ray

        resources = job.config.resources
        kind, each = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
        there = ray.cluster_resources().get(kind, 0)
        room = int(there / each) if each else resources.workers
        if room < 1:
            key = f"{job.step.name}.resources.{kind.lower()}s"
            raise UserError(f"{key}: a worker asks for {each:g} {kind}, Ray has {there:g}")
        return room


class _Actor:
    """A ``Worker`` in a process of its own. A unit may come twice: a commit is idempotent."""

    def __init__(self, folder: str) -> None:
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"node {socket.gethostname()} has no {folder}: the driver's folder, with its code, weights "
                "and prompts, must lie on a path that every node of the cluster shares"
            )
        os.chdir(folder)

    def take(self, job: Job) -> Stopped | None:
        """Work for ``job`` from now on; the models of the one before are dropped."""
        try:
            _end_by_signals()
            with reading(job.folder.plan):
                there = exists(job.folder.plan)
            if there:
                self._worker = Worker(job, watched=True)
                return None
        except BaseException as error:
            return _stopped(f"{job.step.name} could not start", error)
        return Stopped(
            f"{job.step.name}: node {socket.gethostname()} does not see {job.folder.root}: let the "
            "manifest's key 'runs' name a path that every node shares, or s3://"
        )

    def run(self, unit: Unit) -> Result | Stopped | Died:
        try:
            return self._worker.run(unit)
        except FatalError as error:
            return Died(str(error), by_itself=True)
        except BaseException as error:
            return _stopped(f"{self._worker.job.step.name}, unit {unit.number}", error)


def _end_by_signals() -> None:
    """Who ends this process with a signal means the process: Ray's handler would raise within a row."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))


def _stopped(what: str, error: BaseException) -> Stopped:
    if isinstance(error, UserError):
        return Stopped(str(error), user=True)
    if isinstance(error, StageError):
        return Stopped(str(error), error.details)
    stage_error = StageError(f"{what}: {describe(error)}", traceback.format_exc())
    return Stopped(str(stage_error), stage_error.details)


def _shared(job: Job) -> Any:
    """The job, where workers find it."""
    import ray

    try:
        return ray.put(job)
    except Exception as error:  # of any code that a stage's class or config brings
        raise StageError(
            f"{job.step.name} cannot be sent to workers: {describe(error)}", traceback.format_exc()
        ) from error


def _hung(job: Job) -> Died:
    seconds = job.config.resources.hang_seconds
    return Died(f"no batch ended in {seconds:g} s ({job.step.name}.resources.hang_seconds)", hung=True)


def _outcome(reference: Any) -> Result | Stopped | Died | None:
    """What a call to an actor came to; None for ``take`` that went well."""
    import ray

    try:
        return ray.get(reference)
    except Exception as error:  # Ray's own, or what it could not make of an answer
        words = " ".join(describe(error).split())
        raised = "Traceback" in words or "creation task" in words  # by our own code, whose words come last
        return Died(words[-LONGEST_REASON:] if raised else words[:LONGEST_REASON])


def _told(job: Job, lost: dict[int, str]) -> str:
    numbers = ", ".join(map(str, sorted(lost)[:10])) + (" ..." if len(lost) > 10 else "")
    return (
        f"{job.step.name} stopped: {len(lost)} units lost one worker after the other, also row by row, and "
        f"no few rows are to blame ({numbers}): {lost[min(lost)]}"
    )
