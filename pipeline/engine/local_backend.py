"""A plain loop with one worker in this process, for light stages and for debugging."""

import traceback
from collections.abc import Iterator, Sequence

from pipeline.engine.guarded import FatalError
from pipeline.engine.jobs import AHEAD, Job, Result, Unit
from pipeline.engine.worker import Worker
from pipeline.errors import StageError
from pipeline.interrupts import heeded


class LocalBackend:
    def run(self, job: Job, units: Sequence[Unit]) -> Iterator[Result]:
        """Yield each unit's result when its file is committed."""
        worker = Worker(job)
        with heeded():
            for place, unit in enumerate(units, 1):
                try:
                    yield worker.run(unit, units[place : place + AHEAD])
                except FatalError as error:
                    raise StageError(
                        f"{job.step.name} ended at unit {unit.number}: {error}", traceback.format_exc()
                    ) from error

    def close(self) -> None:
        """Nothing to close."""
