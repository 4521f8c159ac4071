"""A stage's batches: one record a row, whatever the stage does.

A batch that raises is run row by row, so that only the row at fault fails. One that is out of memory is
halved instead until it fits; what was run so is outside the promise of equal bytes.
"""

from typing import Any

import pyarrow as pa

from pipeline.errors import StageError
from stages.base import failed, output_schema, to_table

STATUSES = ("kept", "rejected", "failed")
LONGEST_REASON = 300
"""Characters; a message may quote a caption of any length."""


class FatalError(Exception):
    """The process cannot be trusted any more: end it."""


class Guarded:
    """A loaded stage. ``smallest`` is the smallest batch that memory asked for, None if it never did."""

    def __init__(self, name: str, stage: Any, batch: int) -> None:
        self._name, self._stage, self._batch = name, stage, batch
        self.smallest: int | None = None

    def __call__(self, rows: pa.Table) -> tuple[pa.Table, list[Exception]]:
        """The records of at most ``batch`` rows, and what was raised on the way.

        Raises:
            StageError: the stage broke its contract, or says that no row would fare better.
            FatalError: this process must end.
        """
        return self._run(rows, self._batch)

    def _run(self, rows: pa.Table, batch: int) -> tuple[pa.Table, list[Exception]]:
        try:
            return self._checked(rows), []
        except (StageError, FatalError):
            raise
        except Exception as error:
            _raise_if_fatal(error)
            out_of_memory = type(error).__name__ == "OutOfMemoryError"  # torch's; no stage is imported here
            if batch == 1 or (rows.num_rows == 1 and not out_of_memory):
                record = to_table(rows["id"].to_pylist(), [failed(error)], self._stage.schema)
                return _shorten(record), [error]
        # Outside of the handler: the error's frames hold what the batch had allocated.
        if not out_of_memory:
            return self._in_pieces(rows, 1, batch)
        smaller = batch // 2
        self._stage.resize(smaller)
        try:
            result = self._in_pieces(rows, smaller, smaller)
        finally:
            self._stage.resize(batch)
        self.smallest = min(self.smallest or smaller, smaller)
        return result

    def _in_pieces(self, rows: pa.Table, size: int, batch: int) -> tuple[pa.Table, list[Exception]]:
        pieces = [self._run(rows.slice(start, size), batch) for start in range(0, rows.num_rows, size)]
        return pa.concat_tables(table for table, _ in pieces), [error for _, es in pieces for error in es]

    def _checked(self, rows: pa.Table) -> pa.Table:
        """The stage's output, which must be one record a row, in order, of its schema."""
        records = self._stage(rows)
        expected = output_schema(self._stage.schema)
        if not records.schema.equals(expected):
            raise StageError(f"{self._name} broke its contract: it wrote {records.schema}, not {expected}")
        if records["id"].to_pylist() != rows["id"].to_pylist():
            raise StageError(
                f"{self._name} broke its contract: its records are not those of its rows, in order"
            )
        unknown = set(records["status"].to_pylist()) - set(STATUSES)
        if unknown:
            raise StageError(f"{self._name} broke its contract: status {unknown} is none of {STATUSES}")
        return _shorten(records)


def _raise_if_fatal(error: Exception) -> None:
    """After a CUDA error other than out-of-memory every later call of the process fails too."""
    text = failed(error).reason
    sticky = ("CUDA error", "cuDNN error", "device-side assert")
    if isinstance(error, MemoryError) or any(words in text for words in sticky):
        raise FatalError(text) from error


def _shorten(records: pa.Table) -> pa.Table:
    """Reasons on one line of bounded length: they are counted in footers and shown in tables."""
    reasons = [" ".join(reason.split())[:LONGEST_REASON] for reason in records["reason"].to_pylist()]
    index = records.schema.get_field_index("reason")
    return records.set_column(index, records.schema.field(index), pa.array(reasons, pa.string()))
