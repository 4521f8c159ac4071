"""Batches that run out of memory are halved; their records are those of an undisturbed run."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.guarded import Guarded
from pipeline.ledger import count_run
from pipeline.sealed import read_metadata
from stages.base import StageConfig, kept, to_table


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Hungry:
    """Has memory for ``room`` rows, dummies that fill its batch included; notes what it was given."""

    schema = pa.schema([("number", pa.int64())])

    def __init__(self, room: int, batch: int = 8, broken: int | None = None) -> None:
        self.room, self.config, self.broken = room, StageConfig(batch=batch), broken
        self.given: list[int] = []

    def resize(self, batch: int) -> None:
        self.config = self.config.model_copy(update={"batch": batch})

    def __call__(self, rows: pa.Table) -> pa.Table:
        assert rows.num_rows <= self.config.batch
        if self.config.batch > self.room:
            raise OutOfMemoryError("CUDA out of memory")
        numbers = rows["number"].to_pylist()
        if self.broken in numbers:
            raise ValueError("broken row")
        self.given.append(rows.num_rows)
        return to_table(rows["id"].to_pylist(), [kept(number=n) for n in numbers], self.schema)


def table(count: int) -> pa.Table:
    return pa.table({"id": [f"row {n}" for n in range(count)], "number": pa.array(range(count), pa.int64())})


@pytest.mark.parametrize(("room", "given"), [(8, [8]), (7, [4, 4]), (3, [2, 2, 2, 2]), (1, [1] * 8)])
def test_a_batch_is_halved_until_it_fits_and_the_next_starts_whole(room, given):
    stage = Hungry(room)
    guarded = Guarded("draw", stage, 8)
    records, errors = guarded(table(8))
    assert records["number"].to_pylist() == list(range(8))
    assert (stage.given, errors) == (given, [])
    assert guarded.smallest == (None if room == 8 else given[0])
    assert stage.config.batch == 8


def test_a_few_rows_are_padded_to_the_batch_and_so_are_halved_too():
    stage = Hungry(2)
    records, _ = Guarded("draw", stage, 8)(table(1))
    assert records["status"].to_pylist() == ["kept"]


def test_a_row_that_does_not_fit_alone_fails_and_so_does_a_broken_one_among_halves():
    records, errors = Guarded("draw", Hungry(0), 8)(table(3))
    assert set(records["reason"].to_pylist()) == {"OutOfMemoryError: CUDA out of memory"}
    assert len(errors) == 3
    records, errors = Guarded("draw", Hungry(4, broken=5), 8)(table(8))
    assert [r["id"] for r in records.to_pylist() if r["status"] == "failed"] == ["row 5"]
    assert len(errors) == 1


def test_a_run_with_too_little_memory_ends_as_one_with_enough_and_says_so(make_run):
    small, enough = make_run("small"), make_run("enough")
    small.switch("small memory")
    state = small.generate()
    (small.folder.parent / "switches" / "small memory").unlink()
    enough.generate()
    shards = [
        pa.concat_tables(pq.read_table(path) for path in sorted((run.run / "shards").glob("*.parquet")))
        for run in (small, enough)
    ]
    assert shards[0].equals(shards[1]), "fake rows do not depend on their batch"
    assert all(not count.failed.total() and not count.pending.total() for count in count_run(state))
    footer, _ = read_metadata(small.run / "write" / "00000.parquet", None)
    assert footer["smallest_batch"] == 1
    assert "smallest_batch" not in read_metadata(enough.run / "write" / "00000.parquet", None)[0]
    events = [json.loads(line) for line in (small.run / "events.jsonl").read_text().splitlines()]
    assert {e.get("smallest_batch") for e in events if e.get("stage") == "write"} == {1}
