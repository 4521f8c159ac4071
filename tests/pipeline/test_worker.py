from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from pipeline import engine
from pipeline.errors import StageError
from pipeline.ledger import count_run
from stages.base import kept
from tests.pipeline.fake_stages import FAKES, Write
from tests.pipeline.runs import QUIET, assert_sum_is_exact


def generate(run, stage, **stages):
    manifest = run.manifest()
    return engine.generate(manifest, FAKES | {"write": stage}, progress=QUIET, engine="local", **stages)


def captions(*numbers):
    return [f"broken cube {i}" if i in numbers else f"cube {i}" for i in range(8)]


def test_row_that_raises_is_failed_and_its_batch_goes_on(make_run):
    run = make_run(captions=captions(1))
    state = run.generate()
    records = pq.read_table(run.run / "write" / "00000.parquet").to_pylist()
    assert [record["status"] for record in records] == ["kept", "failed", "kept", "kept"]
    assert records[1]["reason"].startswith("ValueError: cannot parse row ")
    assert records[1]["instruction"] is None
    assert_sum_is_exact(state)


def test_most_rows_failing_alike_stop_the_stage_and_commit_nothing(make_run):
    run = make_run(captions=captions(4, 5, 6, 7))
    with pytest.raises(StageError, match="most rows of part 1 fail alike: ValueError: cannot parse row"):
        run.generate()
    assert set(run.files()) == {"plan.parquet", "write/00000.parquet"}
    assert "ValueError" in (run.run / "last_error.txt").read_text()
    assert not list(run.run.rglob("*.tmp"))


@pytest.mark.parametrize("broken", [(4, 5, 6), (1, 2, 5, 6)])
def test_fewer_equal_failures_are_rows(make_run, broken):
    run = make_run(captions=captions(*broken))
    counts = count_run(run.generate())
    assert counts[0].failed.total() == len(broken)


def test_failures_of_different_kinds_do_not_stop_the_stage(make_run):
    class Various(Write):
        errors: ClassVar = [ValueError, TypeError, KeyError, IndexError]

        def decide(self, row):
            raise self.errors[int(row["caption"][-1]) % 4]("x")

    assert count_run(generate(make_run(captions=captions()), Various))[0].failed.total() == 8


class Reversed(Write):
    def __call__(self, rows):
        return super().__call__(rows).take(list(range(rows.num_rows))[::-1])


class Renamed(Write):
    def __call__(self, rows):
        return super().__call__(rows).rename_columns(["id", "status", "reason", "x", "tags"])


class Undecided(Write):
    def __call__(self, rows):
        records = super().__call__(rows)
        return records.set_column(1, records.schema.field(1), [["perhaps"] * rows.num_rows])


@pytest.mark.parametrize("stage", [Reversed, Renamed, Undecided])
def test_stage_that_breaks_its_contract_stops(make_run, stage):
    run = make_run(captions=captions())
    with pytest.raises(StageError, match="write broke its contract"):
        generate(run, stage)
    assert not run.files("write")


def test_stage_that_cannot_start_stops(run):
    class Missing(Write):
        def __init__(self, config, tasks):
            raise OSError("no such model")

    with pytest.raises(StageError, match="write could not start: OSError: no such model"):
        generate(run, Missing)


def test_error_that_spoils_the_process_is_no_rows_fault(run):
    class Spoiled(Write):
        def decide(self, row):
            raise RuntimeError("CUDA error: illegal address")

    with pytest.raises(StageError, match="write ended at unit 0"):
        generate(run, Spoiled)
    assert not run.files("write")


def test_reason_is_one_line_of_bounded_length(make_run):
    class Verbose(Write):
        def decide(self, row):
            if row["caption"].endswith("0"):
                raise ValueError("a\nb" + "x" * 100_000)
            return kept(instruction="i")

    run = make_run(captions=captions())
    generate(run, Verbose)
    reason = pq.read_table(run.run / "write" / "00000.parquet")["reason"][0].as_py()
    assert reason.startswith("ValueError: a bxxx")
    assert len(reason) == 300
