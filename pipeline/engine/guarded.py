"""A stage's batches: one record a row, whatever the stage does.

A batch that raises is run row by row, so that only the row at fault fails. One that is out of memory is
halved instead until it fits; what was run so is outside the promise of equal bytes.
"""

from typing import Any

import pyarrow as pa

from pipeline import interrupts
from pipeline.errors import StageError, describe, stopping
from stages.base import Decision, Stage, output_schema, storable, to_table

STATUSES = ("kept", "rejected", "failed")
LONGEST_REASON = 300
"""Characters; a message may quote a caption of any length."""
LONGEST_READ = 10_000
"""Characters of a reason that are looked at; a message may be as large as memory."""
SPOILED = ("CUDA error", "cuDNN error", "Triton Error [CUDA]")
"""How the messages begin after which every later call of the process fails too. A message that only quotes
a caption with such words begins otherwise."""


class FatalError(StageError):
    """The process cannot be trusted any more: end it."""


class ContractError(Exception):
    """What the stage wrote about a row is not what it promised."""


class Guarded:
    """A loaded stage. ``smallest`` is the smallest batch that memory asked for, None if it never did."""

    def __init__(self, name: str, stage: Stage[Any], batch: int) -> None:
        self._name, self._stage, self._batch = name, stage, batch
        self._expected = output_schema(stage.schema)
        self.smallest: int | None = None

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, list[BaseException]]:
        """The records of at most ``batch`` rows, and what was raised on the way.

        Raises:
            StageError: the stage broke its contract over a batch though over none of its rows, or says
                that no row would fare better.
            FatalError: this process must end.
            KeyboardInterrupt: the user, or the system, ends this process; never one that a row raised.
        """
        return self._run(rows, self._batch)

    def _run(self, rows: pa.Table, batch: int) -> tuple[pa.Table, list[BaseException]]:
        try:
            records = self._checked(rows)
        except StageError:
            raise
        except BaseException as error:  # SystemExit and the like cost their row, as any error does
            interrupts.check()
            _raise_if_fatal(error)
            out_of_memory = _is_out_of_memory(error)
            broken = str(error) if isinstance(error, ContractError) else None
            if batch == 1 or (rows.num_rows == 1 and not out_of_memory):
                failed = Decision("failed", describe(error)[:LONGEST_READ])
                return _shorten(to_table(rows["id"].to_pylist(), [failed], self._stage.schema)), [error]
        else:
            interrupts.check()
            return records, []
        # Outside of the handler: the error's frames hold what the batch had allocated.
        if out_of_memory:
            return self._in_halves(rows, batch)
        records, errors = self._in_pieces(rows, 1, batch)
        if broken is not None and not errors:
            raise StageError(f"{self._name} broke its contract over a batch, not over its rows: {broken}")
        return records, errors

    def _in_halves(self, rows: pa.Table, batch: int) -> tuple[pa.Table, list[BaseException]]:
        smaller = batch // 2
        self._resize(smaller)
        try:
            result = self._in_pieces(rows, smaller, smaller)
        finally:
            self._resize(batch)
        self.smallest = min(self.smallest or smaller, smaller)
        return result

    def _resize(self, batch: int) -> None:
        with stopping(self._name, f"work in batches of {batch} rows"):
            self._stage.resize(batch)

    def _in_pieces(self, rows: pa.Table, size: int, batch: int) -> tuple[pa.Table, list[BaseException]]:
        pieces = [self._run(rows.slice(start, size), batch) for start in range(0, rows.num_rows, size)]
        return pa.concat_tables(table for table, _ in pieces), [error for _, es in pieces for error in es]

    def _checked(self, rows: pa.Table) -> pa.Table:
        """The stage's output, which must be one record a row, in order, of its schema."""
        records = self._stage(rows)
        if not isinstance(records, pa.Table):
            raise self._broken(f"it returned {type(records).__name__}, not a table")
        if not records.schema.equals(self._expected):
            raise self._broken(f"it wrote {records.schema}, not {self._expected}")
        records.validate(full=True)
        if records["id"].to_pylist() != rows["id"].to_pylist():
            raise self._broken(
                f"its records are not those of its rows, in order: {records.num_rows} for {rows.num_rows}"
            )
        for field in self._expected:
            if not field.nullable and records[field.name].null_count:
                raise self._broken(f"it left {field.name} empty")
        unknown = set(records["status"].to_pylist()) - set(STATUSES)
        if unknown:
            raise self._broken(f"status {sorted(unknown)} is none of {STATUSES}")
        return _shorten(records)

    def _broken(self, what: str) -> ContractError:
        return ContractError(f"{self._name} broke its contract: {what}")


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch's error is known by its name, for no stage is imported here."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _raise_if_fatal(error: BaseException) -> None:
    if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
        text = describe(error)
        if text.partition(": ")[2].startswith(SPOILED):
            raise FatalError(text) from error


def _shorten(records: pa.Table) -> pa.Table:
    """Reasons on one line of bounded length: they are counted in footers and shown in tables."""
    read = (reason[:LONGEST_READ] for reason in records["reason"].to_pylist())
    reasons = [storable(" ".join(reason.split())[:LONGEST_REASON]) for reason in read]
    index = records.schema.get_field_index("reason")
    return records.set_column(index, records.schema.field(index), pa.array(reasons, pa.string()))
