import errno
import os
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine import generate as engine
from pipeline.engine.jobs import Job, Unit
from pipeline.engine.ledger import count_run
from pipeline.engine.notes import Note, Notes
from pipeline.engine.worker import Worker
from pipeline.errors import StageError, UserError
from pipeline.manifest.manifest import tasks_of
from pipeline.store.sealed_writer import SealedWriter
from stages.base import StageConfig, kept
from stages.placed import first_turn
from tests.pipeline.fake_stages import FAKES, PLACED, Write
from tests.pipeline.runs import QUIET, assert_sum_is_exact


def generate(run, stage, **stages):
    manifest = run.manifest()
    return engine.generate(
        manifest, first_turn(FAKES | {"write": stage}), progress=QUIET, engine="local", **stages
    )


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
        def __init__(self, config, tasks, *, turn=1):
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


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), ValueError("half \ud800 a pair")])
@pytest.mark.parametrize("where", ["constructed", "survey"])
def test_what_a_stage_raises_before_its_rows_stops_it_with_a_message(run, error, where):
    class Refusing(Write):
        wide: ClassVar[bool] = True

        def __init__(self, config, tasks, *, turn=1):
            super().__init__(config, tasks, turn=turn)
            if where == "constructed":
                raise error

        def survey(self, tables):
            raise error

    action = {"constructed": "start", "survey": "survey the run"}[where]
    with pytest.raises(StageError, match=f"write could not {action}: {type(error).__name__}"):
        generate(run, Refusing)
    assert type(error).__name__ in (run.run / "last_error.txt").read_text()


def test_a_light_stage_that_ends_the_process_when_constructed_says_so(run):
    class Quitting(Write):
        light: ClassVar[bool] = True

        def __init__(self, config, tasks, *, turn=1):
            raise SystemExit(0)

    with pytest.raises(StageError, match="write could not start: SystemExit: 0"):
        generate(run, Quitting)


def test_rows_that_end_or_interrupt_the_process_fail_alone(make_run):
    class Quitting(Write):
        errors: ClassVar = {1: SystemExit(0), 3: KeyboardInterrupt(), 6: GeneratorExit()}

        def decide(self, row):
            number = int(row["caption"][-1])
            if number in self.errors:
                raise self.errors[number]
            return super().decide(row)

    run = make_run(captions=captions())
    state = generate(run, Quitting)
    tables = [pq.read_table(path) for path in sorted((run.run / "write").glob("*.parquet"))]
    status = [status for table in tables for status in table["status"].to_pylist()]
    assert [i for i, s in enumerate(status) if s == "failed"] == [1, 3, 6]
    assert_sum_is_exact(state)


def watched(run, stage="draw"):
    """A worker that leaves notes, of a stage whose input is there."""
    state = run.generate()
    steps = tuple(state.steps.values())
    manifest = run.manifest()
    job = Job(
        folder=state.folder, plan=state.plan, steps=steps, step=state.steps[stage], placed=PLACED[stage],
        config=manifest.section(stage, StageConfig), tasks=tasks_of(manifest), models={},
    )  # fmt: skip
    return Worker(job, watched=True)


def test_rows_run_one_by_one_and_suspects_last_leave_the_same_bytes(make_run):
    run = make_run(draw={"batch": 3})
    worker = watched(run)
    path = run.run / "draw" / "00001.parquet"
    before, ids = path.read_bytes(), pq.read_table(path)["id"].to_pylist()
    for suspects in [(), (ids[0],), (ids[1], ids[3]), tuple(ids)]:
        path.unlink()
        ran = []
        guarded = worker._guarded or worker._load()
        worker._guarded = lambda rows, run=guarded, ran=ran: (ran.extend(rows["id"].to_pylist()), run(rows))[
            1
        ]
        for name in ("start", "smallest", "take_tokens", "use"):
            setattr(worker._guarded, name, getattr(guarded, name))
        worker.run(Unit(1, (1,), careful=True, suspects=suspects))
        worker._guarded = guarded
        assert path.read_bytes() == before
        assert ran == [i for i in ids if i not in suspects] + [i for i in ids if i in suspects]
    assert not list(run.run.rglob("*.tmp"))


def test_a_note_names_a_row_only_while_it_runs_alone(make_run, monkeypatch):
    worker = watched(make_run())
    left = []
    monkeypatch.setattr(Notes, "leave", lambda self, unit, note: left.append(note))
    worker.run(Unit(1, (1,)))
    assert left == [Note(0), Note(1)], "four rows in one batch"
    left.clear()
    worker.run(Unit(1, (1,), careful=True))
    ids = pq.read_table(worker.job.folder.part("draw", 1))["id"].to_pylist()
    assert left == [note for n, row in enumerate(ids) for note in (Note(n, row), Note(n + 1))]


@pytest.mark.parametrize("failing", ["read", "write", "commit"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_file_that_cannot_be_read_or_written_is_named_and_no_rows_fault(run, monkeypatch, failing, number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number))

    run.generate(wave=1)
    before = run.inodes()
    with monkeypatch.context() as patch:
        if failing == "read":
            patch.setattr("pipeline.store.sealed.CountedFile", fail)
            named = "write/00001.parquet"
        else:
            patch.setattr(SealedWriter, {"write": "write", "commit": "commit"}[failing], fail)
            named = "write/00001.parquet"
        with pytest.raises(UserError, match=f"{named}: {os.strerror(number)}"):
            run.generate()
    assert {name: inode for name, inode in run.inodes().items() if name in before} == before
    assert not list(run.run.rglob("*.tmp"))
    assert all(not count.failed.total() for count in count_run(run.generate()))


def test_an_oserror_of_a_stages_own_code_costs_a_row(make_run):
    class Reading(Write):
        def decide(self, row):
            if row["caption"].endswith("5"):
                open("/nonexistent/picture")  # noqa: SIM115
            return super().decide(row)

    run = make_run(captions=captions())
    assert count_run(generate(run, Reading))[0].failed.total() == 1


def test_a_damaged_part_that_is_read_stops_the_stage_without_a_traceback(run, monkeypatch):
    def damaged(*arguments, **options):
        raise pa.ArrowInvalid("Parquet magic bytes not found")

    run.generate(wave=1)
    monkeypatch.setattr("pipeline.store.sealed.CountedFile", damaged)
    with pytest.raises(UserError, match=r"write/00001.parquet cannot be believed: Parquet magic bytes"):
        run.generate()
