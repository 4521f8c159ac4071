"""A worker: one loaded stage that runs units (a part, or the parts of a shard) batch by batch.

A row that raises becomes ``failed("<Type>: message")``. Four kinds of error stop more than the row: most rows
of a part fail alike (then nothing is committed and the stage stops); a stage breaks its contract for batches
but not for single rows; a file cannot be read or written; the process can no longer be trusted.
"""

import re
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.careful import one_by_one
from pipeline.engine.guarded import Guarded
from pipeline.engine.jobs import Job, Result, Unit
from pipeline.engine.notes import Note, Notes
from pipeline.engine.reading import Reader
from pipeline.engine.reuse import MADE_FROM, Records, Reusing, marked, remembers
from pipeline.engine.state import RunState
from pipeline.engine.streaming import Flow, Made
from pipeline.engine.threads import limit_threads
from pipeline.errors import StageError, UserError, describe, input_output_error, stopping
from pipeline.store.answers import KeptAnswers
from pipeline.store.counts import Counts
from pipeline.store.parts import footer_content
from pipeline.store.plan import read_part
from pipeline.store.rows import ids_with_status
from pipeline.store.sealed import read_tables
from pipeline.store.sealed_writer import SealedWriter
from stages.base import Decision, output_schema, to_table

ALIKE = 4
"""A stage never stops for fewer equal failures than this."""
POISONED = Decision("failed", "WorkerLost: every process that ran this row ended or hung with it")


class Worker:
    """Loads its stage on the first unit, so that errors reach the code that runs the unit.

    If ``watched``, it leaves notes about the rows it runs, for a process that checks whether it makes
    progress.
    """

    def __init__(self, job: Job, watched: bool = False) -> None:
        self.job, self._watched = job, watched
        self._guarded: Guarded | None = None
        self._make: Guarded | Reusing | None = None
        self._notes, self._finished = Notes(job.folder, job.step.name), 0
        self._state = RunState(job.folder, job.plan, job.steps)
        self._reader = Reader(job, self._state)
        self._flow: Flow | None = None
        self._answers: dict[int, KeptAnswers] = {}

    def run(self, unit: Unit, ahead: Sequence[Unit] = ()) -> Result:
        """Write one file and commit it.

        Args:
            unit: the file.
            ahead: units that this worker probably gets next. A stage that waits for a server starts on their
                rows when no row of this unit is left.

        Raises:
            StageError: nothing was committed, and other units would fail too.
            UserError: a file could not be read or written; nothing was committed.
            FatalError: this process must end.
        """
        try:
            return self._write(unit, ahead)
        except (StageError, UserError):
            raise
        except OSError as error:  # not a row's own error: that was caught with the row
            raise input_output_error(error, self._state.path(self.job.step, unit.number)) from error
        except Exception as error:
            raise StageError(
                f"{self.job.step.name}, unit {unit.number}: {describe(error)}", traceback.format_exc()
            ) from error

    def _write(self, unit: Unit, ahead: Sequence[Unit]) -> Result:
        started, cpu_started = time.monotonic(), time.process_time()
        guarded = self._guarded = self._guarded or self._load()
        guarded.start()
        self._finished = 0
        step = self.job.step
        path = self._state.path(step, unit.number)
        self._make = guarded
        if remembers(step):
            old = Records(path, self._state.place(step, unit.number)) if unit.reuse else None
            self._make = Reusing(guarded, old)
        schema = self._file_schema()
        counts: Counts = Counter()
        with SealedWriter(path, schema) as writer:
            for part in unit.parts:
                tasks = self._tasks_of(part)
                with self._opened(part), closing(self._records(part, unit, ahead)) as all_records:
                    for records in all_records:
                        counts.update(
                            (tasks[row_id], status, reason)
                            for row_id, status, reason in zip(
                                *(records[name].to_pylist() for name in ("id", "status", "reason")),
                                strict=True,
                            )
                        )
                        if step.publishes:
                            records = records.filter(pc.equal(records["status"], "kept"))
                        writer.write(records.select(schema.names))
            inputs = self._state.inputs(step, unit.parts)
            content = footer_content(step.fingerprint, inputs, counts, guarded.smallest)
            writer.commit(self._state.place(step, unit.number), content)
        if self._watched:
            self._notes.remove(unit.number)
        cpu_seconds = time.process_time() - cpu_started
        seconds = time.monotonic() - started
        taken = guarded.take_tokens()
        return Result(unit.number, counts.total(), seconds, cpu_seconds, taken, guarded.smallest)

    def _load(self) -> Guarded:
        threads = self.job.config.resources.threads
        limit_threads(threads)
        with stopping(self.job.step.name, "start"):
            stage = self.job.placed.load(self.job.config, self.job.tasks)
        limit_threads(threads)
        if self.job.step.wide:
            with stopping(self.job.step.name, "survey the run"):
                stage.survey(self._reader.everything())
        return Guarded(self.job.step.name, stage, self.job.config.batch)

    def _file_schema(self) -> pa.Schema:
        schema = output_schema(self.job.placed.stage.schema)
        if self.job.step.publishes:
            schema = pa.schema([field for field in schema if field.name not in ("status", "reason")])
        if remembers(self.job.step):
            schema = schema.append(MADE_FROM)
        return schema.with_metadata(dict(self.job.placed.stage.schema_metadata) or None)

    def _tasks_of(self, part: int) -> Mapping[str, str]:
        table = read_part(self.job.folder.plan, part, ["id", "task"])
        return dict(zip(table["id"].to_pylist(), table["task"].to_pylist(), strict=True))

    def _records(self, part: int, unit: Unit, ahead: Sequence[Unit]) -> Generator[pa.Table, None, None]:
        """The stage's records of a part, batch by batch."""
        path = self.job.folder.part(self.job.step.name, part)
        if not unit.retry:
            yield from self._run_rows(part, unit, self._reader.given(part), ahead)
            return
        again = list(self._run_rows(part, unit, ids_with_status(path, "failed"), ()))
        for old in read_tables(path, None, self.job.config.batch):
            if old.num_rows:
                yield _replace(old, again)

    def _run_rows(self, part: int, unit: Unit, ids: pa.Array, ahead: Sequence[Unit]) -> Iterator[pa.Table]:
        alike: Counter[str] = Counter()
        run = self._one_by_one if unit.careful else partial(self._in_batches, ahead=ahead)
        with closing(run(part, ids, unit)) as all_made:
            for records, errors in all_made:
                if not unit.retry:  # on a retry, failures are expected: these rows failed before
                    self._stop_if_alike(part, records, errors, alike, len(ids))
                yield records

    def _stop_if_alike(
        self, part: int, records: pa.Table, errors: list[BaseException], alike: Counter[str], rows: int
    ) -> None:
        for reason in records.filter(pc.equal(records["status"], "failed"))["reason"].to_pylist():
            kind = re.sub(r"0x[0-9a-f]+|\d+", "#", reason)
            alike[kind] += 1
            if alike[kind] >= ALIKE and 2 * alike[kind] > rows:
                raise StageError(
                    f"{self.job.step.name} stopped: most rows of part {part} fail alike: {reason}",
                    "".join(traceback.format_exception(errors[-1])) if errors else "",
                )

    def _in_batches(
        self, part: int, ids: pa.Array, unit: Unit, ahead: Sequence[Unit]
    ) -> Generator[Made, None, None]:
        assert self._make is not None
        assert self._guarded is not None
        if unit.retry or remembers(self.job.step):
            flow, next_parts = Flow(self._make, lambda one: self._rows(one, ids)), []
        else:
            flow = self._flow = self._flow or Flow(self._guarded, self._rows)
            next_parts = [one.parts[0] for one in ahead if not one.careful and not one.retry]
        with closing(flow.run(part, -(-len(ids) // self.job.config.batch), next_parts)) as all_made:
            while True:
                self._note(unit)
                made = next(all_made, None)
                if made is None:
                    return
                yield made
                self._finished += 1

    @contextmanager
    def _opened(self, part: int) -> Iterator[None]:
        self._reader.check(part)
        try:
            yield
        finally:
            self._reader.done(part)
            for answers in self._answers.values():
                answers.write()
            self._answers.pop(part, None)

    def _rows(self, part: int, ids: pa.Array | None = None) -> Iterator[pa.Table]:
        """Rows of a part, for a stage that knows where answers about them are kept."""
        assert self._guarded is not None
        for rows in self._reader.rows(part, ids):
            if part not in self._answers:
                self._answers[part] = KeptAnswers(self.job.folder.answers(self.job.step.name, part))
            self._guarded.use(self._answers[part])
            yield rows

    def _one_by_one(self, part: int, ids: pa.Array, unit: Unit) -> Generator[Made, None, None]:
        yield from one_by_one(self._rows(part, ids), unit, lambda row: self._alone(row, unit), self._poisoned)

    def _poisoned(self, row: pa.Table) -> Made:
        record = to_table(row["id"].to_pylist(), [POISONED], self.job.placed.stage.schema)
        return (marked(record, row) if remembers(self.job.step) else record), []

    def _alone(self, row: pa.Table, unit: Unit) -> Made:
        assert self._make is not None
        self._note(unit, row["id"][0].as_py())
        made = self._make(row)
        self._finished += 1
        self._note(unit)  # no row is to blame if the process ends while the file is written
        return made

    def _note(self, unit: Unit, row: str | None = None) -> None:
        if self._watched:
            self._notes.leave(unit.number, Note(self._finished, row))


def _replace(old: pa.Table, again: list[pa.Table]) -> pa.Table:
    """``old``, with the records of ``again`` in place of those with the same id."""
    new = {row_id: table.slice(i, 1) for table in again for i, row_id in enumerate(table["id"].to_pylist())}
    records = [new.get(row_id, old.slice(i, 1)) for i, row_id in enumerate(old["id"].to_pylist())]
    return pa.concat_tables(records).combine_chunks()
