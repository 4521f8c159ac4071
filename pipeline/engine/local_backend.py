"""The plain loop: one worker in this process. For light stages, and for a debugger."""

import traceback
from collections.abc import Iterator, Sequence

from pipeline.engine.guarded import FatalError
from pipeline.engine.jobs import Job, Result, Unit
from pipeline.engine.worker import Worker
from pipeline.errors import StageError
from pipeline.interrupts import heeded


class LocalBackend:
    def run(self, job: Job, units: Sequence[Unit]) -> Iterator[Result]:
        """Yield each unit's result as its file is committed."""
        worker = Worker(job)
        with heeded():
            for unit in units:
                try:
                    yield worker.run(unit)
                except FatalError as error:
                    raise StageError(
                        f"{job.step.name} ended at unit {unit.number}: {error}", traceback.format_exc()
                    ) from error

    def close(self) -> None:
        """Nothing is held."""
