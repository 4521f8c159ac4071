"""A worker: one loaded stage that runs units (a part, or the parts of a shard) batch by batch.

A row that raises becomes ``failed("<Type>: message")``. Four kinds of error stop more than the row: most rows
of a part fail alike (then nothing is committed and the stage stops); a stage breaks its contract for batches
but not for single rows; a file cannot be read or written; the process can no longer be trusted.
"""

import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.given import given_ids, given_rows
from pipeline.engine.guarded import Guarded
from pipeline.engine.jobs import Job, Result, Unit
from pipeline.engine.notes import Note, Notes
from pipeline.engine.reuse import MADE_FROM, Records, Reusing, marked, remembers
from pipeline.engine.state import RunState
from pipeline.engine.threads import limit_threads
from pipeline.errors import StageError, UserError, describe, input_output_error, stopping
from pipeline.store.counts import Counts
from pipeline.store.parts import footer_content
from pipeline.store.plan import read_part
from pipeline.store.rows import ids_with_status
from pipeline.store.sealed import DamagedFileError, check_digest, read_tables
from pipeline.store.sealed_writer import SealedWriter
from stages.base import Decision, output_schema, to_table

ALIKE = 4
"""A stage never stops for fewer equal failures than this."""
POISONED = Decision("failed", "WorkerLost: every process that ran this row ended or hung with it")


Made: TypeAlias = tuple[pa.Table, list[BaseException]]
"""Records, and the exceptions raised while making them."""


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

    def run(self, unit: Unit) -> Result:
        """Write one file and commit it.

        Raises:
            StageError: nothing was committed, and other units would fail too.
            UserError: a file could not be read or written; nothing was committed.
            FatalError: this process must end.
        """
        try:
            return self._write(unit)
        except (StageError, UserError):
            raise
        except OSError as error:  # not a row's own error: that was caught with the row
            raise input_output_error(error, self._state.path(self.job.step, unit.number)) from error
        except Exception as error:
            raise StageError(
                f"{self.job.step.name}, unit {unit.number}: {describe(error)}", traceback.format_exc()
            ) from error

    def _write(self, unit: Unit) -> Result:
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
                self._check_inputs(part)
                tasks = self._tasks_of(part)
                for records in self._records(part, unit):
                    counts.update(
                        (tasks[row_id], status, reason)
                        for row_id, status, reason in zip(
                            *(records[name].to_pylist() for name in ("id", "status", "reason")), strict=True
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
                stage.survey(self._everything())
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

    def _records(self, part: int, unit: Unit) -> Iterator[pa.Table]:
        """The stage's records of a part, batch by batch."""
        path = self.job.folder.part(self.job.step.name, part)
        if not unit.retry:
            yield from self._run_rows(part, unit, self._given(part))
            return
        again = list(self._run_rows(part, unit, ids_with_status(path, "failed")))
        for old in read_tables(path, None, self.job.config.batch):
            if old.num_rows:
                yield _replace(old, again)

    def _check_inputs(self, part: int) -> None:
        """Check that the input files have the committed bytes.

        Raises:
            UserError: a file differs.
        """
        for name in self.job.step.inputs:
            try:
                check_digest(
                    self.job.folder.part(name, part), self._state.place(self._state.steps[name], part)
                )
            except DamagedFileError as error:
                raise UserError(f"{error}. Delete it and give the same command: it is made again") from error

    def _everything(self) -> Iterator[pa.Table]:
        """The rows of all existing parts, with the columns that the stage reads."""
        try:
            for part in self._state.all_readable(self.job.step):
                self._check_inputs(part)
                yield from self._read(part, self._given(part))
        except OSError as error:  # ours, not of the stage that asks for the rows
            raise input_output_error(error) from error

    def _read(self, part: int, ids: pa.Array) -> Iterator[pa.Table]:
        job = self.job
        size, pictures = job.config.batch, job.pictures
        return given_rows(job.folder, job.step, job.placed, part, ids, size, job.models, pictures)

    def _given(self, part: int) -> pa.Array:
        return given_ids(self.job.folder, self.job.step, part)

    def _run_rows(self, part: int, unit: Unit, ids: pa.Array) -> Iterator[pa.Table]:
        run = self._one_by_one if unit.careful else self._in_batches
        alike: Counter[str] = Counter()
        for records, errors in run(self._read(part, ids), unit):
            if not unit.retry:  # on a retry, failures are expected: these rows failed before
                for reason in records.filter(pc.equal(records["status"], "failed"))["reason"].to_pylist():
                    kind = re.sub(r"0x[0-9a-f]+|\d+", "#", reason)
                    alike[kind] += 1
                    if alike[kind] >= ALIKE and 2 * alike[kind] > len(ids):
                        raise StageError(
                            f"{self.job.step.name} stopped: most rows of part {part} fail alike: {reason}",
                            "".join(traceback.format_exception(errors[-1])) if errors else "",
                        )
            yield records

    def _in_batches(self, batches: Iterator[pa.Table], unit: Unit) -> Iterator[Made]:
        assert self._make is not None
        for rows in batches:
            self._note(unit)
            yield self._make(rows)
            self._finished += 1

    def _one_by_one(self, batches: Iterator[pa.Table], unit: Unit) -> Iterator[Made]:
        """The records of a part's rows, each run alone. Poison rows fail; suspects run after all others.

        The batches are those of an undisturbed run, so that the file has the same row groups. From the first
        suspect on, rows and records of the part are kept in memory.
        """
        held: list[list[pa.Table | Made]] = []
        for rows in batches:
            batch = [self._made_or_later(rows.slice(i, 1), unit) for i in range(rows.num_rows)]
            if held or any(isinstance(entry, pa.Table) for entry in batch):
                held.append(batch)
            else:
                yield _joined(batch)
        for batch in held:
            yield _joined([self._alone(e, unit) if isinstance(e, pa.Table) else e for e in batch])

    def _made_or_later(self, row: pa.Table, unit: Unit) -> pa.Table | Made:
        """The result of a row, or the row itself if it must run later."""
        row_id = row["id"][0].as_py()
        if row_id in unit.suspects:
            return row
        if row_id in unit.poison:
            record = to_table([row_id], [POISONED], self.job.placed.stage.schema)
            return (marked(record, row) if remembers(self.job.step) else record), []
        return self._alone(row, unit)

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


def _joined(made: list[Made]) -> Made:
    return pa.concat_tables([records for records, _ in made]), [e for _, errors in made for e in errors]


def _replace(old: pa.Table, again: list[pa.Table]) -> pa.Table:
    """``old``, with the records of ``again`` in place of those with the same id."""
    new = {row_id: table.slice(i, 1) for table in again for i, row_id in enumerate(table["id"].to_pylist())}
    records = [new.get(row_id, old.slice(i, 1)) for i, row_id in enumerate(old["id"].to_pylist())]
    return pa.concat_tables(records).combine_chunks()
