"""Stages that wait for a server: the engine runs them as one stream, and a row at fault costs itself."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.engine.guarded import Guarded
from pipeline.engine.streaming import BrokenStreamError, Flow
from pipeline.errors import UserError
from stages.base import StageConfig, kept, to_table


class Reader:
    """A stage that reads ``ahead`` batches further than it yields; rows of ``bad`` raise."""

    schema = pa.schema([("number", pa.int64())])

    def __init__(self, ahead: int, bad: Any = ()) -> None:
        self.ahead, self.bad = ahead, bad
        self.config = StageConfig()
        self.streams = 0
        self.ran: list[int] = []

    def __call__(self, rows: pa.Table) -> pa.Table:
        numbers = rows["number"].to_pylist()
        for number in numbers:
            if number in self.bad:
                raise self.bad[number] if isinstance(self.bad, dict) else ValueError(f"broken {number}")
        self.ran += numbers
        return to_table(rows["id"].to_pylist(), [kept(number=n) for n in numbers], self.schema)

    def stream(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        self.streams += 1
        waiting: list[pa.Table] = []
        for rows in batches:
            waiting.append(self(rows))
            if len(waiting) > self.ahead:
                yield waiting.pop(0)
        yield from waiting


def part(number: int, sizes: list[list[int]]) -> Iterator[pa.Table]:
    first = 100 * number
    for size in sizes[number]:
        numbers = range(first, first + size)
        yield pa.table({"id": [f"row {n}" for n in numbers], "number": pa.array(numbers, pa.int64())})
        first += size


SIZES = st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=5)


@example([[1], [1], [1]], 2, 1, set())
@given(SIZES, st.integers(0, 6), st.integers(0, 3), st.sets(st.integers(0, 420), max_size=8))
def test_every_batch_has_its_records_in_order_and_a_bad_row_fails_alone(sizes, ahead, told, bad):
    """Over all parts, however far the stage reads ahead, and however many parts it is told of."""
    stage = Reader(ahead, bad)
    flow = Flow(Guarded("ask", stage, 8), lambda number: part(number, sizes))
    for number in range(len(sizes)):
        after = range(number + 1, min(number + 1 + told, len(sizes)))
        made = list(flow.run(number, len(sizes[number]), after))
        records = [record for table, _ in made for record in table.to_pylist()]
        expected = [n for table in part(number, sizes) for n in table["number"].to_pylist()]
        assert [table.num_rows for table, _ in made] == sizes[number]
        assert [record["id"] for record in records] == [f"row {n}" for n in expected]
        assert [record["status"] for record in records] == [
            "failed" if n in bad else "kept" for n in expected
        ]
        assert all(r["reason"] == f"ValueError: broken {r['id'][4:]}" for r in records if r["reason"])
    if not bad and told:
        assert len(stage.ran) == len(set(stage.ran)), "nothing runs twice"
        # A stream ends if the stage reads further ahead than the parts that it was told of.
        if not ahead or told >= len(sizes) - 1:
            assert stage.streams <= 1 + sum(not size for size in sizes)


def test_parts_that_do_not_come_next_after_all_change_nothing():
    stage, sizes = Reader(3), [[2, 2], [2], [3], [1]]
    flow = Flow(Guarded("ask", stage, 8), lambda number: part(number, sizes))
    for number, told in [(0, [1, 2]), (2, [3]), (1, []), (3, [])]:
        made = list(flow.run(number, len(sizes[number]), told))
        assert made[0][0]["id"][0].as_py() == f"row {100 * number}"


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_a_row_that_tries_to_end_the_process_fails_alone(error):
    flow = Flow(Guarded("ask", Reader(1, {1: error}), 8), lambda number: part(number, [[2, 1]]))
    [(first, errors), (second, _)] = flow.run(0, 2)
    assert first["status"].to_pylist() == ["kept", "failed"]
    assert second["status"].to_pylist() == ["kept"]
    assert errors == [error]


def test_an_error_of_reading_the_rows_is_no_rows_fault():
    def read(number: int) -> Iterator[pa.Table]:
        yield from part(0, [[1]])
        raise UserError("write/00000.parquet cannot be believed")

    with pytest.raises(UserError, match="cannot be believed"):
        list(Flow(Guarded("ask", Reader(2), 8), read).run(0, 2))


class Short(Reader):
    def stream(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return islice(super().stream(batches), 1)


class Swapped(Reader):
    def stream(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return (table.take([1, 0]) for table in super().stream(batches))


@pytest.mark.parametrize("stage", [Short(5), Swapped(0)])
def test_a_stream_that_breaks_the_contract_is_not_believed(stage):
    class Closing:
        def __getattr__(self, name):
            return getattr(stage, name)

        def stream(self, batches):
            yield from stage.stream(batches)

    guarded = Guarded("ask", Closing(), 8)
    with pytest.raises(BrokenStreamError):
        list(guarded.stream(part(0, [[2, 2, 2]])))
