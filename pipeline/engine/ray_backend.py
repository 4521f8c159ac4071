"""Stages on Ray: one stage at a time, on workers in actors. Each worker is given one unit at a time.

Pictures never travel through Ray. Only this file and ``ray_start`` import ray, and only when a stage is to
run on it.
"""

import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from pipeline.engine.actor import Actor, Stopped
from pipeline.engine.jobs import AHEAD, Job, Result, Unit
from pipeline.engine.losses import Died, Heartbeats, Losses
from pipeline.engine.ray_start import start_ray
from pipeline.engine.threads import thread_variables
from pipeline.errors import StageError, UserError, describe
from pipeline.manifest.manifest import RayOptions
from stages.base import Resources

STARTS = 3
"""How often workers may end before any of them has loaded the stage."""
LOOK = 5.0
"""Most seconds between two checks of the workers' heartbeats."""
LONGEST_REASON = 500
"""Most characters of Ray's message about a worker that ended."""


class RayBackend:
    """Workers of a local Ray or a cluster.

    Workers without a GPU stay from stage to stage, because importing torch takes longer than many a stage of
    a small run. Workers with a GPU are replaced: only the end of a process frees all GPU memory.
    """

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._started = False
        self._crew: list[Any] = []
        self._terms: Resources | None = None

    def run(self, job: Job, units: Sequence[Unit]) -> Iterator[Result]:
        """Yield each unit's result when its file is committed, in any order.

        Raises:
            StageError: a worker reports it, units kept losing their workers, or Ray itself has ended.
            UserError: the cluster lacks the resources in ``<stage>.resources``.
        """
        self._start()
        import ray

        self._gather(job, min(job.config.resources.workers, len(units), self._room(job)))
        shared = _shared(job)
        waiting, idle, starts, lost = deque(units), list[Any](), 0, dict[int, str]()
        busy: dict[Any, tuple[Any, Unit | None]] = {w.take.remote(shared): (w, None) for w in self._crew}
        hearts, losses = Heartbeats(job), Losses(job)
        look = min(LOOK, job.config.resources.hang_seconds / 2)
        # Not ``while busy``: on a cluster that lost a node, a new worker may wait for room without end.
        while waiting or any(unit for _, unit in busy.values()):
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
                if waiting and not idle:
                    worker = self._hire()
                    busy[worker.take.remote(shared)] = worker, None
            else:
                starts = 0
                idle.append(worker)
            if waiting and idle:
                worker, unit = idle.pop(), waiting.popleft()
                hearts.begin(unit.number)
                ahead = list(islice(waiting, AHEAD)) if len(self._crew) == 1 else []
                busy[worker.run.remote(unit, ahead)] = worker, unit
        if lost:
            raise StageError(_told(job, lost))

    def close(self) -> None:
        if self._started:
            import ray

            ray.shutdown()
            self._started, self._crew = False, []

    def _gather(self, job: Job, count: int) -> None:
        """Have exactly ``count`` workers with the job's resources."""
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
        worker = ray.remote(Actor).options(runtime_env=environment, **asked).remote(os.getcwd())
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
        """The number of workers of a stage that the cluster has room for."""
        import ray

        resources = job.config.resources
        kind, each = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
        cluster = ray.cluster_resources()
        if not cluster:
            raise StageError(f"{job.step.name}: Ray's node processes have ended: run the command again")
        there = cluster.get(kind, 0)
        if (room := int(there / each) if each else resources.workers) < 1:
            key = f"{job.step.name}.resources.{kind.lower()}s"
            raise UserError(f"{key}: a worker asks for {each:g} {kind}, Ray has {there:g}")
        return room


def _shared(job: Job) -> Any:
    """Put the job into the object store, where workers find it."""
    import ray

    try:
        return ray.put(job)
    except Exception as error:  # pickling runs code of the stage's class and config
        raise StageError(
            f"{job.step.name} cannot be sent to workers: {describe(error)}", traceback.format_exc()
        ) from error


def _hung(job: Job) -> Died:
    seconds = job.config.resources.hang_seconds
    return Died(f"no batch ended in {seconds:g} s ({job.step.name}.resources.hang_seconds)", hung=True)


def _outcome(reference: Any) -> Result | Stopped | Died | None:
    """The result of a call to an actor; None for a successful ``take``."""
    import ray

    try:
        return ray.get(reference)
    except Exception as error:  # Ray's own error, or an answer that Ray could not send
        words = " ".join(describe(error).split())
        # Raised by our code; its message comes last.
        raised = "Traceback" in words or "creation task" in words
        return Died(words[-LONGEST_REASON:] if raised else words[:LONGEST_REASON])


def _told(job: Job, lost: dict[int, str]) -> str:
    numbers = ", ".join(map(str, sorted(lost)[:10])) + (" ..." if len(lost) > 10 else "")
    return (
        f"{job.step.name} stopped: {len(lost)} units lost one worker after the other, also row by row, and "
        f"no single rows are to blame ({numbers}): {lost[min(lost)]}"
    )
