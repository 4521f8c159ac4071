"""A row costs itself, whatever it raises or makes of its record; a batch out of memory is halved."""

import asyncio
import json
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import interrupts
from pipeline.engine.guarded import Guarded
from pipeline.engine.ledger import count_run
from pipeline.errors import StageError
from pipeline.store.sealed import read_metadata
from stages.base import Decision, StageConfig, kept, rejected, to_table


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Hungry:
    """Has memory for ``room`` rows, dummies that fill its batch included; notes what it was given."""

    schema = pa.schema([("number", pa.int64())])

    def __init__(self, room: int, batch: int = 8, broken: int | None = None) -> None:
        self.room, self.config, self.broken = room, StageConfig(batch=batch), broken
        self.given: list[int] = []
        self.calls = 0

    def resize(self, batch: int) -> None:
        self.config = self.config.model_copy(update={"batch": batch})

    def __call__(self, rows: pa.Table) -> pa.Table:
        assert rows.num_rows <= self.config.batch
        self.calls += 1
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
def test_a_batch_is_halved_until_it_fits_and_stays_halved(room, given):
    stage = Hungry(room)
    guarded = Guarded("draw", stage, 8)
    calls = 0
    for _ in range(3):
        guarded.start()
        stage.given.clear()
        records, errors = guarded(table(8))
        assert records["number"].to_pylist() == list(range(8))
        assert (stage.given, errors) == (given, [])
        assert guarded.smallest == (None if room == 8 else given[0])
        assert stage.config.batch == given[0]
        calls = calls or stage.calls
    assert stage.calls == calls + 2 * len(given), "later batches are not tried whole"


def test_a_row_that_does_not_even_fit_alone_does_not_make_the_batches_of_others_small():
    class Greedy(Hungry):
        """Row 5 needs more memory than there is."""

        def __call__(self, rows: pa.Table) -> pa.Table:
            if 5 in rows["number"].to_pylist():
                raise OutOfMemoryError("CUDA out of memory")
            return super().__call__(rows)

    stage = Greedy(8)
    guarded = Guarded("draw", stage, 8)
    records, errors = guarded(table(8))
    assert [r["id"] for r in records.to_pylist() if r["status"] == "failed"] == ["row 5"]
    assert len(errors) == 1
    assert stage.config.batch == guarded.batch == 8


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
    small.switch("small memory", on=False)
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


class Unprintable(BaseException):
    def __str__(self):
        raise SystemExit(0)


class UntoldError(Exception):
    def __str__(self):
        return 5


RAISED = [
    SystemExit(0), SystemExit("bye"), KeyboardInterrupt(), GeneratorExit(), StopIteration(3), BaseException(),
    asyncio.CancelledError(), Unprintable(), UntoldError(), RecursionError(), OSError(28, "full"),
    MemoryError("full"), ValueError("half \ud800 a pair"), ValueError("a\0b"), ValueError("x" * 5_000_000),
    ValueError(b"\xff"), ValueError("caption: CUDA error"),
]  # fmt: skip


class Scripted:
    """Does with a row what a script says of it: raises it, calls it, or keeps what it is."""

    schema = pa.schema([("text", pa.string()), ("texts", pa.list_(pa.string()))])

    def __init__(self, script: dict[str, object]) -> None:
        self.script = script

    def resize(self, batch: int) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = []
        for row_id in rows["id"].to_pylist():
            value = self.script.get(row_id, "fine")
            if isinstance(value, BaseException):
                raise value
            decisions.append(value if isinstance(value, Decision) else kept(text=value, texts=[value]))
        return to_table(rows["id"].to_pylist(), decisions, self.schema)


@given(script=st.dictionaries(st.sampled_from([f"row {n}" for n in range(8)]), st.sampled_from(RAISED)))
def test_whatever_a_row_raises_costs_that_row_only(script):
    records, errors = Guarded("draw", Scripted(script), 8)(table(8))
    records.validate(full=True)
    told = {r["id"]: r for r in records.to_pylist()}
    assert {row for row, r in told.items() if r["status"] == "failed"} == set(script)
    assert len(errors) == len(script)
    for row, error in script.items():
        reason = told[row]["reason"]
        assert reason.startswith(type(error).__name__ + ":")
        assert len(reason) <= 300
        assert "\0" not in reason


@given(
    text=st.text(st.characters(), max_size=20),
    reason=st.one_of(st.text(), st.integers(), st.binary(), st.none()),
)
def test_any_text_and_any_reason_of_a_stage_can_be_stored(text, reason):
    stage = Scripted({"row 0": text, "row 1": rejected(reason)})
    records, errors = Guarded("draw", stage, 8)(table(3))
    assert not errors
    assert records["status"].to_pylist() == ["kept", "rejected", "kept"]
    sink = pa.BufferOutputStream()
    pq.write_table(records, sink)
    read = pq.read_table(pa.BufferReader(sink.getvalue()))
    read.validate(full=True)
    stored = read["text"][0].as_py()
    assert stored == read["texts"][0].as_py()[0]
    assert "\0" not in stored + "".join(read["reason"].to_pylist())
    if text.isprintable():
        assert stored == text


def test_halves_of_a_pair_are_joined_and_others_replaced():
    stage = Scripted({"row 0": "a\ud83d\ude00b", "row 1": "a\ud83db"})
    records, _ = Guarded("draw", stage, 8)(table(2))
    assert records["text"].to_pylist() == ["a\U0001f600b", "a\ufffdb"]


def one(row: str, spoil):
    """A stage whose records of one row are spoilt, alone or in a batch."""

    class Spoilt(Scripted):
        def __call__(self, rows):
            records = super().__call__(rows)
            return spoil(records) if row in rows["id"].to_pylist() else records

    return Spoilt({})


def invalid(records: pa.Table) -> pa.Table:
    spoilt = pa.array([b"\xff"] * records.num_rows).view(pa.string())
    return records.set_column(3, records.schema.field(3), spoilt)


BROKEN = {
    "too many": lambda records: pa.concat_tables([records, records]),
    "too few": lambda records: records.slice(1),
    "another id": lambda records: records.set_column(0, records.schema.field(0), [["x"] * records.num_rows]),
    "no id": lambda records: records.set_column(
        0, records.schema.field(0), pa.array([None] * records.num_rows, pa.string())
    ),
    "no status": lambda records: records.set_column(
        1, records.schema.field(1), pa.array([None] * records.num_rows, pa.string())
    ),
    "no reason": lambda records: records.set_column(
        2, records.schema.field(2), pa.array([None] * records.num_rows, pa.string())
    ),
    "another column": lambda records: records.rename_columns([*records.column_names[:-1], "y"]),
    "no table": lambda records: None,
    "not UTF-8": invalid,
}


@pytest.mark.parametrize("spoil", BROKEN.values(), ids=BROKEN)
def test_a_row_about_which_the_contract_is_broken_fails_alone(spoil):
    records, _ = Guarded("draw", one("row 3", spoil), 8)(table(8))
    failed = {r["id"]: r["reason"] for r in records.to_pylist() if r["status"] == "failed"}
    assert list(failed) == ["row 3"]
    assert failed["row 3"].startswith(("ContractError: draw broke its contract: ", "ArrowInvalid: "))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_within_a_row_is_not_the_rows(number, swallowed):
    class Struck(Scripted):
        def __call__(self, rows):
            if swallowed:
                try:
                    signal.raise_signal(number)
                except BaseException as error:
                    raise ValueError("cannot") from error
            signal.raise_signal(number)

    with interrupts.heeded(), pytest.raises(KeyboardInterrupt):
        Guarded("draw", Struck({}), 8)(table(2))


@pytest.mark.parametrize("error", [SystemExit(0), ValueError("no"), Unprintable()])
def test_a_stage_that_cannot_take_smaller_batches_says_so(error):
    class Stubborn(Hungry):
        def resize(self, batch):
            raise error

    with pytest.raises(StageError, match=f"draw could not work in batches of 4 rows: {type(error).__name__}"):
        Guarded("draw", Stubborn(4), 8)(table(8))


def test_memory_too_small_for_pythons_own_objects_is_halved_too():
    class Small(Hungry):
        def __call__(self, rows):
            if self.config.batch > 2:
                raise MemoryError
            return super().__call__(rows)

    guarded = Guarded("draw", Small(8), 8)
    records, errors = guarded(table(8))
    assert (set(records["status"].to_pylist()), errors, guarded.smallest) == ({"kept"}, [], 2)
