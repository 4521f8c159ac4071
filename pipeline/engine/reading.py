"""Reading the rows of a job's parts, with the columns that the stage reads."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.engine.given import given_ids, given_rows
from pipeline.engine.jobs import Job
from pipeline.engine.state import RunState
from pipeline.errors import UserError, input_output_error
from pipeline.store.sealed import DamagedFileError, check_digest


class Reader:
    """The input files of a job. A part is checked before its rows are read."""

    def __init__(self, job: Job, state: RunState) -> None:
        self._job, self._state = job, state
        self._checked: set[int] = set()

    def check(self, part: int) -> None:
        """Check that the input files of a part have the committed bytes; once until it is done.

        Raises:
            UserError: a file differs.
        """
        if part in self._checked:
            return
        for name in self._job.step.inputs:
            try:
                place = self._state.place(self._state.steps[name], part)
                check_digest(self._job.folder.part(name, part), place)
            except DamagedFileError as error:
                raise UserError(f"{error}. Delete it and give the same command: it is made again") from error
        self._checked.add(part)

    def done(self, part: int) -> None:
        """Check the part again should it be read once more."""
        self._checked.discard(part)

    def given(self, part: int) -> pa.Array:
        """The ids of the rows that the step is given."""
        return given_ids(self._job.folder, self._job.step, part)

    def rows(self, part: int, ids: pa.Array | None = None) -> Iterator[pa.Table]:
        """Rows of a part in batches; all that the step is given, or those with ``ids``."""
        job = self._job
        self.check(part)
        ids = self.given(part) if ids is None else ids
        size, pictures = job.config.batch, job.pictures
        return given_rows(job.folder, job.step, job.placed, part, ids, size, job.models, pictures)

    def everything(self) -> Iterator[pa.Table]:
        """The rows of all existing parts."""
        try:
            for part in self._state.all_readable(self._job.step):
                yield from self.rows(part)
                self.done(part)
        except OSError as error:  # ours, not of the stage that asks for the rows
            raise input_output_error(error) from error
