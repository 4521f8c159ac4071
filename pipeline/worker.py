"""A worker: one loaded stage, run over units (a part, or the parts of a shard) batch by batch.

A row that raises becomes ``failed("<Type>: message")``. Three things are not a row's fault and end
more than the row: most rows of a part failing alike (nothing is committed, the stage stops), a
stage that breaks its contract, and an error after which the process is not to be trusted.
"""

import json
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.counts import Counts
from pipeline.errors import StageError, UserError
from pipeline.folder import RunFolder
from pipeline.guarded import Guarded
from pipeline.new_file import temporary
from pipeline.parts import footer_content
from pipeline.plan import Plan, read_part
from pipeline.rows import ids_with_status, kept_ids, read_rows
from pipeline.sealed import DamagedFileError, SealedWriter, check_digest, read_tables
from pipeline.state import RunState
from pipeline.steps import Step
from pipeline.storage import Location
from pipeline.threads import limit_threads
from stages.base import Decision, StageConfig, output_schema, to_table
from stages.tasks import Tasks

ALIKE = 4
"""Fewer equal failures than this never stop a stage."""
POISONED = Decision("failed", "WorkerLost: every process that ran this row ended or hung with it")


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of the run; travels to worker processes."""

    folder: RunFolder
    plan: Plan
    steps: tuple[Step, ...]
    step: Step
    stage: Any
    config: StageConfig
    tasks: Tasks
    models: Mapping[str, str]
    """Each model of the run by manifest key."""


@dataclass(frozen=True)
class Unit:
    """One file to write."""

    number: int
    parts: tuple[int, ...]
    retry: bool = False
    """Run only the rows that failed, keep the other records as they are."""
    careful: bool = False
    """Run every row alone and leave its id behind, should the process end with it."""
    poison: tuple[str, ...] = ()
    """Rows that ended their process: they fail without being run."""


@dataclass(frozen=True)
class Result:
    unit: int
    rows: int
    seconds: float
    cpu_seconds: float
    """Of all the worker's threads."""
    smallest_batch: int | None = None
    """See ``Guarded``."""


class Worker:
    """Loads its stage on the first unit, so that whoever runs it can report what goes wrong.

    With ``watched`` it leaves behind which rows it runs, for someone who sees whether it goes on.
    """

    def __init__(self, job: Job, watched: bool = False) -> None:
        self.job, self._watched = job, watched
        self._guarded: Guarded | None = None
        self._state = RunState(job.folder, job.plan, job.steps)

    def run(self, unit: Unit) -> Result:
        """Write one file and commit it.

        Raises:
            StageError: nothing was committed, and other units would fare no better.
            FatalError: this process must end.
        """
        started, cpu_started = time.monotonic(), time.process_time()
        guarded = self._guarded = self._guarded or self._load()
        guarded.smallest = None
        step = self.job.step
        path = self._state.path(step, unit.number)
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
                    if step.parts_per_unit is not None:
                        records = records.filter(pc.equal(records["status"], "kept"))
                    writer.write(records.select(schema.names))
            inputs = self._state.inputs(step, unit.parts)
            content = footer_content(step.fingerprint, inputs, counts, guarded.smallest)
            writer.commit(self._state.place(step, unit.number), content)
        if self._watched:
            row_under_way(self.job, unit.number).unlink(missing_ok=True)
        cpu_seconds = time.process_time() - cpu_started
        seconds = time.monotonic() - started
        return Result(unit.number, counts.total(), seconds, cpu_seconds, guarded.smallest)

    def _load(self) -> Guarded:
        threads = self.job.config.resources.threads
        limit_threads(threads)
        try:
            stage = self.job.stage(self.job.config, self.job.tasks)
        except Exception as error:
            raise StageError(
                f"{self.job.step.name} could not start: {type(error).__name__}: {error}",
                traceback.format_exc(),
            ) from error
        limit_threads(threads)
        if self.job.step.wide:
            stage.survey(self._everything())
        return Guarded(self.job.step.name, stage, self.job.config.batch)

    def _file_schema(self) -> pa.Schema:
        schema = output_schema(self.job.stage.schema)
        if self.job.step.parts_per_unit is not None:
            schema = pa.schema([field for field in schema if field.name not in ("status", "reason")])
        return schema.with_metadata(dict(self.job.stage.schema_metadata) or None)

    def _tasks_of(self, part: int) -> Mapping[str, str]:
        table = read_part(self.job.folder.plan, part, ["id", "task"])
        return dict(zip(table["id"].to_pylist(), table["task"].to_pylist(), strict=True))

    def _records(self, part: int, unit: Unit) -> Iterator[pa.Table]:
        """The stage's records of a part, a batch at a time."""
        path = self.job.folder.part(self.job.step.name, part)
        if not unit.retry:
            yield from self._run_rows(part, unit, self._given(part))
            return
        again = list(self._run_rows(part, unit, ids_with_status(path, "failed")))
        for old in read_tables(path, None, self.job.config.batch):
            if old.num_rows:
                yield _replace(old, again)

    def _check_inputs(self, part: int) -> None:
        """See that the files the stage reads are what was committed, to the last bit.

        Raises:
            UserError: one is not.
        """
        for name in self.job.step.inputs:
            try:
                check_digest(
                    self.job.folder.part(name, part), self._state.place(self._state.steps[name], part)
                )
            except DamagedFileError as error:
                raise UserError(f"{error}. Delete it and give the same command: it is made again") from error

    def _everything(self) -> Iterator[pa.Table]:
        """The rows of all parts that are there, as the stage reads them."""
        for part in self._state.all_readable(self.job.step):
            yield from self._read(part, self._given(part))

    def _read(self, part: int, ids: pa.Array) -> Iterator[pa.Table]:
        job = self.job
        files = {name: job.folder.part(name, part) for name in job.step.inputs}
        run = {"models": json.dumps(job.models)}
        return read_rows(job.folder.plan, part, files, job.stage.reads, run, ids, job.config.batch)

    def _given(self, part: int) -> pa.Array:
        previous = self.job.step.previous
        if previous is None:
            return read_part(self.job.folder.plan, part, ["id"])["id"].combine_chunks()
        return kept_ids(self.job.folder.part(previous, part))

    def _run_rows(self, part: int, unit: Unit, ids: pa.Array) -> Iterator[pa.Table]:
        job = self.job
        alike: Counter[str] = Counter()
        for rows in self._read(part, ids):
            records, errors = self._carefully(rows, unit) if unit.careful else self._run_batch(rows, unit)
            for reason in records.filter(pc.equal(records["status"], "failed"))["reason"].to_pylist():
                kind = re.sub(r"0x[0-9a-f]+|\d+", "#", reason)
                alike[kind] += 1
                if alike[kind] >= ALIKE and 2 * alike[kind] > len(ids):
                    raise StageError(
                        f"{job.step.name} stopped: most rows of part {part} fail alike: {reason}",
                        "".join(traceback.format_exception(errors[-1])) if errors else "",
                    )
            yield records

    def _run_batch(self, rows: pa.Table, unit: Unit) -> tuple[pa.Table, list[Exception]]:
        assert self._guarded is not None
        if self._watched:
            row_under_way(self.job, unit.number).write_text(rows["id"][0].as_py(), encoding="utf-8")
        return self._guarded(rows)

    def _carefully(self, rows: pa.Table, unit: Unit) -> tuple[pa.Table, list[Exception]]:
        """The stage's records of rows run one by one; poison fails."""
        records, errors = [], []
        for i, row_id in enumerate(rows["id"].to_pylist()):
            if row_id in unit.poison:
                records.append(to_table([row_id], [POISONED], self.job.stage.schema))
                continue
            record, raised = self._run_batch(rows.slice(i, 1), unit)
            records.append(record)
            errors += raised
        return pa.concat_tables(records), errors


def row_under_way(job: Job, unit: int) -> Location:
    """Where a watched worker leaves the first row of the batch that it runs: its heartbeat.

    Removed like any temporary file.
    """
    return temporary(job.folder.part(job.step.name, unit), "row")


def _replace(old: pa.Table, again: list[pa.Table]) -> pa.Table:
    """``old`` with the records of ``again`` in the place of those with the same id."""
    new = {row_id: table.slice(i, 1) for table in again for i, row_id in enumerate(table["id"].to_pylist())}
    records = [new.get(row_id, old.slice(i, 1)) for i, row_id in enumerate(old["id"].to_pylist())]
    return pa.concat_tables(records).combine_chunks()
