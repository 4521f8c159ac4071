"""Ray Data as the scheduler of unit numbers: pictures never travel through it.

The only file that imports ray, and only once a stage is to run on it.
"""

import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import StageError, UserError
from pipeline.manifest import RayOptions
from pipeline.threads import thread_variables
from pipeline.worker import FatalError, Job, Result, Unit, Worker

OBJECT_STORE_BYTES = 100_000_000
"""Only unit numbers pass through the store."""
STARTS = 3
"""How often a local Ray is started before giving up: a busy machine misses Ray's fixed time limit."""
RETRIES = 2
"""How often a unit is given to a new worker after its worker died; Ray's default is endless."""


class RayBackend:
    """One stage at a time over all workers of a local Ray or a cluster."""

    def __init__(self, options: RayOptions) -> None:
        self._options = options
        self._started = False

    def run(self, job: Job, units: Sequence[Unit]) -> Iterator[Result]:
        """Yield each unit's result as its file is committed, in no particular order.

        Raises:
            StageError: a worker says so, or units were lost with their workers.
            UserError: the cluster lacks what ``<stage>.resources`` asks for.
        """
        self._start()
        import ray
        from ray.data import ActorPoolStrategy

        resources = job.config.resources
        asked: dict[str, Any] = (
            {"num_gpus": resources.gpus} if resources.gpus else {"num_cpus": resources.cpus}
        )
        workers = min(resources.workers, len(units), self._room(job))
        # Parts of one stage only: chained GPU stages in one streaming plan wait for each other's GPUs.
        items = [{"unit": json.dumps(asdict(unit))} for unit in units]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                _RayWorker,
                fn_constructor_args=[job, os.getcwd()],
                batch_size=1,
                compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                max_restarts=-1,
                max_task_retries=RETRIES,
                runtime_env={"env_vars": thread_variables(resources.threads)},
                **asked,
            )
        _silence()
        lost = {unit.number for unit in units}
        for row in results.iter_batches(batch_size=1, prefetch_batches=0):
            result = json.loads(row["result"][0])
            if "error" in result:
                raise StageError(result["error"], result["details"])
            lost.discard(result["unit"])
            yield Result(**result)
        if lost:
            raise StageError(_lost(job, lost))

    def close(self) -> None:
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def _start(self) -> None:
        if self._started:
            return
        # Read by Ray when it is imported or started, so set before.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        from ray.data import DataContext

        address = self._options.address or os.environ.get("RAY_ADDRESS")
        local: dict[str, Any] = {
            "num_cpus": len(os.sched_getaffinity(0)),
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
        context = DataContext.get_current()
        context.max_errored_blocks = -1  # a part that kills its workers must not end the others
        context.max_consecutive_actor_init_deaths = 3  # one flaky start is not the end
        context.execution_no_progress_timeout_s = -1  # a part may take longer than Ray's 30 minutes
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        _silence()

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


class _RayWorker:
    """A ``Worker`` in an actor. Ray restarts it and repeats units: a commit is idempotent."""

    def __init__(self, job: Job, folder: str) -> None:
        os.chdir(folder)
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"result": [json.dumps(self._run(json.loads(text))) for text in batch["unit"].tolist()]}

    def _run(self, content: dict[str, Any]) -> dict[str, Any]:
        unit = Unit(**content)
        note = _death_note(self._worker.job, unit.number)
        try:
            result = self._worker.run(unit)
        except FatalError as error:
            note.write_text(str(error), encoding="utf-8")
            os._exit(1)
        except StageError as error:
            return {"error": str(error), "details": error.details}
        except Exception as error:
            message = f"{self._worker.job.step.name}, unit {unit.number}: {type(error).__name__}: {error}"
            return {"error": message, "details": traceback.format_exc()}
        note.unlink(missing_ok=True)
        return asdict(result)


def _death_note(job: Job, unit: int) -> Path:
    """Where a worker that must end says why; the driver cannot hear it otherwise."""
    return job.folder.root / job.step.name / f"{unit:05d}.died"


def _lost(job: Job, lost: set[int]) -> str:
    reasons = []
    for unit in sorted(lost):
        note = _death_note(job, unit)
        if note.exists():
            reasons.append(note.read_text(encoding="utf-8"))
            note.unlink()
    numbers = ", ".join(map(str, sorted(lost)[:10])) + (" ..." if len(lost) > 10 else "")
    reason = reasons[0] if reasons else "no error was left behind: perhaps out of memory"
    return (
        f"{job.step.name} stopped: {len(lost)} units ended their worker {RETRIES + 1} times each "
        f"({numbers}): {reason}"
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


def _silence() -> None:
    """Ray Data sets its own log levels up when it is first used; what matters reaches the user as errors."""
    for name in ("ray", "ray.data", "ray.tune", "ray.rllib", "ray.train"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL)
        for handler in logger.handlers:
            handler.setLevel(logging.CRITICAL)
