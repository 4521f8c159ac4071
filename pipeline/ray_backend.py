"""Stages on Ray: one stage at a time over workers in actors, each given one unit at a time.

Pictures never travel through Ray. The only file that imports ray, and only once a stage is to run on it.
"""

import logging
import os
import socket
import sys
import time
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import StageError, UserError
from pipeline.guarded import FatalError
from pipeline.manifest import RayOptions
from pipeline.threads import thread_variables, usable_cpus
from pipeline.worker import Job, Result, Unit, Worker, row_under_way
from stages.base import Resources

OBJECT_STORE_BYTES = 100_000_000
"""Only jobs, units and results pass through the store."""
STARTS = 3
"""How often a local Ray, or a worker, is started before giving up: a busy machine misses time limits."""
RETRIES = 2
"""How often a unit is given to a new worker after its worker died; then it is run row by row."""
LOOK = 5.0
"""Seconds between two looks at the workers' heartbeats, at most."""
MOST_POISON = 3
"""Rows of a unit that may end their worker; more are no accident, and stop the stage."""


@dataclass(frozen=True)
class Stopped:
    """A worker's answer if the stage cannot go on."""

    message: str
    details: str


@dataclass(frozen=True)
class Died:
    """What ended a worker, or why it must end."""

    reason: str
    hung: bool = False


class Heartbeats:
    """Sees by the rows that workers leave behind (:func:`row_under_way`) which of them hang.

    By what stands there and this process's own clock, so that no machine's clock matters.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._seen = job, dict[int, tuple[str, float]]()

    def hangs(self, unit: int) -> bool:
        """Whether the unit's worker has been over one batch for too long."""
        note = row_under_way(self._job, unit)
        try:
            row = note.read_text(encoding="utf-8")
        except FileNotFoundError:
            row = ""
        now = time.monotonic()
        if self._seen.get(unit, (None, 0))[0] != row:
            self._seen[unit] = row, now
        return now - self._seen[unit][1] > self._job.config.resources.hang_seconds

    def begin(self, unit: int) -> None:
        """The unit begins, or begins again."""
        self._seen.pop(unit, None)


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
        shared = ray.put(job)
        waiting, deaths, lost = deque(units), Counter[int](), dict[int, str]()
        busy: dict[Any, tuple[Any, Unit | None]] = {w.take.remote(shared): (w, None) for w in self._crew}
        hearts = Heartbeats(job)
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
                raise StageError(outcome.message, outcome.details)
            if isinstance(outcome, Result):
                yield outcome
            if isinstance(outcome, Died):
                self._dismiss(worker)
                number = -1 if unit is None else unit.number
                deaths[number] += 1
                if unit is None and deaths[number] >= STARTS:
                    raise StageError(f"{job.step.name}: no worker starts: {outcome.reason}")
                if unit is not None:
                    patience = 0 if outcome.hung else RETRIES
                    again = unit if deaths[number] <= patience else _careful(job, unit)
                    if again is None:
                        lost[number] = outcome.reason
                    else:
                        waiting.append(again)
                if waiting:
                    worker = self._hire()
                    busy[worker.take.remote(shared)] = worker, None
            elif waiting:
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
        if self._started:
            return
        # Read by Ray when it is imported or started, so set before.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault(
            "RAY_prestart_worker_first_driver", "0"
        )  # ours have an environment of their own
        import ray

        address = self._options.address or os.environ.get("RAY_ADDRESS")
        local: dict[str, Any] = {
            "num_cpus": usable_cpus(),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": self._options.dashboard,
            "dashboard_host": "127.0.0.1",
        }
        for attempt in range(1 if address else STARTS):
            try:
                with warnings.catch_warnings(), _stderr_closed():
                    warnings.simplefilter("ignore")
                    ray.init(
                        address=address or "local",
                        logging_level=logging.CRITICAL,
                        log_to_driver=False,
                        **({} if address else local),
                    )
                break
            except Exception as error:  # Ray raises bare ones, such as when its 30 seconds are over
                ray.shutdown()
                if address or attempt == STARTS - 1:
                    raise UserError(
                        f"Ray did not start (ray.address: {address or 'this machine'}): {error}\n"
                        "--engine local does without it"
                    ) from error
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
        if not job.folder.plan.exists():
            return Stopped(
                f"{job.step.name}: node {socket.gethostname()} does not see {job.folder.root}: let the "
                "manifest's key 'runs' name a path that every node shares, or s3://",
                "",
            )
        self._worker = Worker(job, watched=True)
        return None

    def run(self, unit: Unit) -> Result | Stopped | Died:
        try:
            return self._worker.run(unit)
        except FatalError as error:
            return Died(str(error))
        except StageError as error:
            return Stopped(str(error), error.details)
        except Exception as error:
            name = self._worker.job.step.name
            message = f"{name}, unit {unit.number}: {type(error).__name__}: {error}"
            return Stopped(message, traceback.format_exc())


def _careful(job: Job, unit: Unit) -> Unit | None:
    """The unit once more, row by row, without the row that just ended its worker; None: give up."""
    poison = unit.poison
    if unit.careful:
        note = row_under_way(job, unit.number)
        if not note.exists() or len(poison) >= MOST_POISON:
            return None
        poison = (*poison, note.read_text(encoding="utf-8"))
        note.unlink()
    return replace(unit, careful=True, poison=poison)


def _hung(job: Job) -> Died:
    seconds = job.config.resources.hang_seconds
    return Died(f"no batch ended in {seconds:g} s ({job.step.name}.resources.hang_seconds)", hung=True)


def _outcome(reference: Any) -> Result | Stopped | Died | None:
    """What a call to an actor came to; None for ``take`` that went well."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Died(" ".join(lines)[:500] or type(error).__name__)


def _told(job: Job, lost: dict[int, str]) -> str:
    numbers = ", ".join(map(str, sorted(lost)[:10])) + (" ..." if len(lost) > 10 else "")
    return (
        f"{job.step.name} stopped: {len(lost)} units ended every worker, also row by row "
        f"({numbers}): {lost[min(lost)]}"
    )


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Ray's compiled part says on the process's stderr how much it will say there, whatever the level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
