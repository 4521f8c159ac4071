"""Running a stage's batches: the result is one record per row, even if the stage raises.

If a batch raises, its rows run one by one, so that only the row at fault fails. If a batch runs out of
memory, it is halved until it fits, and later batches have the size that fit. Rows from a halved batch are
outside the promise of equal bytes.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

import pyarrow as pa

from pipeline import interrupts
from pipeline.engine.streaming import BrokenStreamError, Given, Made
from pipeline.errors import StageError, UserError, describe, stopping
from stages.base import Answers, Decision, Stage, output_schema, storable, to_table

STATUSES = ("kept", "rejected", "failed")
LONGEST_REASON = 300
"""Most characters of a reason. An error message can quote a caption of any length."""
LONGEST_READ = 10_000
"""Most characters of a message that are read. A message can be as large as memory."""
SPOILED = ("CUDA error", "cuDNN error", "Triton Error [CUDA]")
"""Beginnings of messages after which every later call in the process fails too.

A message that quotes such words from a caption has another beginning."""


class FatalError(StageError):
    """The process can no longer be trusted and must end."""


class ContractError(Exception):
    """The stage's output for a row does not match its contract."""


class Guarded:
    """A loaded stage with a batch size that memory may lower."""

    def __init__(self, name: str, stage: Stage[Any], batch: int) -> None:
        self._name, self._stage, self._wanted, self.batch = name, stage, batch, batch
        self._expected = output_schema(stage.schema)
        self._tried = batch

    @property
    def smallest(self) -> int | None:
        """The smallest batch since ``start``; None if no batch was smaller than wanted."""
        return None if self._tried == self._wanted else self._tried

    def start(self) -> None:
        """Begin a file: ``smallest`` is about the batches from here on."""
        self._tried = self.batch

    def take_tokens(self) -> dict[str, int]:
        """The tokens that the stage's model has taken since the last call, as keys of an event."""
        taken = dict(self._stage.tokens)
        self._stage.tokens.clear()
        return taken

    def use(self, answers: Answers) -> None:
        """Let the stage keep its model's answers there."""
        self._stage.answers = answers

    def stream(self, batches: Iterator[pa.Table]) -> Generator[Made, None, None]:
        """Run batches, and yield the result of each in order; as one stream if the stage can.

        Raises:
            BrokenStreamError: the stage raised, or broke its contract, before the next batch was made.
            The errors of ``__call__`` and of ``batches``.
        """
        given = Given(batches)
        made = self._stage.stream(given)
        if made is None:
            yield from map(self, batches)
            return
        with closing(made):
            while True:
                try:
                    records = next(made, None)
                    if records is None:
                        if given.waiting:
                            raise self._broken("it ended before its rows")
                        return
                    records = self._verified(records, given.waiting.popleft())
                except (StageError, UserError):
                    raise
                except BaseException as error:
                    interrupts.check()
                    if given.error is not None:
                        raise given.error from None
                    _raise_if_fatal(error)
                    raise BrokenStreamError from error
                yield records, []

    def __call__(self, rows: pa.Table) -> Made:
        """Run at most ``batch`` rows. Returns their records and the exceptions raised on the way.

        Raises:
            StageError: the stage broke its contract for a batch but for none of its rows alone, or it says
                that every row would fail in the same way.
            FatalError: this process must end.
            KeyboardInterrupt: the user or the system ends this process. A row's own KeyboardInterrupt is
                caught.
        """
        if rows.num_rows > self.batch:
            return self._in_pieces(rows, self.batch)
        return self._run(rows)

    def _run(self, rows: pa.Table) -> Made:
        """Run at most ``batch`` rows."""
        batch = self.batch
        try:
            records = self._verified(self._stage(rows), rows["id"].to_pylist())
        except (StageError, UserError):
            raise
        except BaseException as error:  # a row's SystemExit also costs only this row
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
        # Outside the handler, because the error's frames keep the batch's allocations alive.
        if out_of_memory:
            return self._in_halves(rows, batch)
        pieces = [self._run(rows.slice(start, 1)) for start in range(rows.num_rows)]
        records, errors = _together(pieces)
        if broken is not None and not errors:
            raise StageError(f"{self._name} broke its contract over a batch, not over its rows: {broken}")
        return records, errors

    def _in_halves(self, rows: pa.Table, batch: int) -> Made:
        """Run rows in half as large batches. If a row does not even fit alone, the size is restored."""
        self._resize(batch // 2)
        result = self._in_pieces(rows, self.batch)
        if any(_is_out_of_memory(error) for error in result[1]):
            self._resize(batch)
        return result

    def _resize(self, batch: int) -> None:
        with stopping(self._name, f"work in batches of {batch} rows"):
            self._stage.resize(batch)
        self.batch, self._tried = batch, min(self._tried, batch)

    def _in_pieces(self, rows: pa.Table, size: int) -> Made:
        """Run rows in batches of ``size``, or of what memory has lowered it to on the way."""
        pieces, start = [], 0
        while start < rows.num_rows:
            size = min(size, self.batch)
            pieces.append(self._run(rows.slice(start, size)))
            start += size
        return _together(pieces)

    def _verified(self, records: pa.Table, ids: list[str]) -> pa.Table:
        """The stage's output, checked: one record per row, in order, with the stage's schema."""
        if not isinstance(records, pa.Table):
            raise self._broken(f"it returned {type(records).__name__}, not a table")
        if not records.schema.equals(self._expected):
            raise self._broken(f"it wrote {records.schema}, not {self._expected}")
        records.validate(full=True)
        if records["id"].to_pylist() != ids:
            raise self._broken(
                f"its records are not those of its rows, in order: {records.num_rows} for {len(ids)}"
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


def _together(pieces: list[Made]) -> Made:
    return pa.concat_tables(table for table, _ in pieces), [error for _, es in pieces for error in es]


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch's error is recognised by name, because the engine imports no torch."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _raise_if_fatal(error: BaseException) -> None:
    if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
        text = describe(error)
        if text.partition(": ")[2].startswith(SPOILED):
            raise FatalError(text) from error


def _shorten(records: pa.Table) -> pa.Table:
    """Put each reason on one line of bounded length: footers count reasons and tables show them."""
    read = (reason[:LONGEST_READ] for reason in records["reason"].to_pylist())
    reasons = [storable(" ".join(reason.split())[:LONGEST_REASON]) for reason in read]
    index = records.schema.get_field_index("reason")
    return records.set_column(index, records.schema.field(index), pa.array(reasons, pa.string()))
