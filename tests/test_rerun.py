"""``rerun`` forces one stage, then runs whatever became stale."""

import pytest

from pipeline.engine import generate as engine
from pipeline.engine.ledger import count_run
from pipeline.errors import UserError
from stages.placed import first_turn
from tests.pipeline.fake_stages import FAKES, Write, switched_on
from tests.pipeline.runs import QUIET, assert_sum_is_exact
from tests.test_guard import made_again


def test_same_output_makes_nothing_downstream_stale(run):
    run.generate()
    content, before = run.files(), run.inodes()
    run.rerun("draw")
    assert made_again(run, before) == {"draw"}
    assert run.files() == content


def test_only_the_given_parts_and_their_shard(run):
    run.generate()
    before = run.inodes()
    run.rerun("write", "write.greeting=hi", parts=range(1, 2), replace=True)
    after = run.inodes()
    assert [name for name in after if after[name] != before[name]] == [
        "draw/00001.parquet",
        "shards/train-00000-of-00003.parquet",
        "sieve/00001.parquet",
        "write/00001.parquet",
    ]


def test_failed_row_reaches_the_shards_and_the_rest_stays(make_run):
    captions = [f"cube {i}" for i in range(19)] + ["broken cube"]
    run, never_failed = make_run(captions=captions), make_run("clean", captions)
    counts = count_run(run.generate())
    assert counts[0].failed.total() == 1
    before = run.inodes()
    run.switch("mended")
    state = run.rerun("write", retry_failed=True)
    assert_sum_is_exact(state)
    assert [count.failed.total() for count in count_run(state)] == [0, 0, 0, 0]
    after = run.inodes()
    assert {name for name in after if after[name] != before[name]} == {
        "draw/00004.parquet",
        "shards/train-00002-of-00003.parquet",
        "sieve/00004.parquet",
        "write/00004.parquet",
    }
    never_failed.generate()
    assert run.files() == never_failed.files()


def test_retry_without_failures_does_nothing(run):
    run.generate()
    before = run.inodes()
    run.rerun("write", retry_failed=True)
    assert run.inodes() == before


def test_retry_keeps_rows_that_fail_again(make_run):
    run = make_run(captions=["broken a", "b", "broken c", "d"])
    run.generate()
    content = run.files()
    state = run.rerun("write", retry_failed=True)
    assert run.files() == content
    assert count_run(state)[0].failed.total() == 2


def test_rows_that_fail_again_alike_stop_nothing_and_what_follows_is_retried(make_run):
    class Half(Write):
        """Its mended half is that of the second part."""

        def decide(self, row):
            if "late" in row["caption"] and switched_on("half mended"):
                return super().decide({**row, "caption": row["caption"].replace("broken", "")})
            return super().decide(row)

    early, late = ([f"{word} {i}" for i in range(4)] for word in ("broken", "broken late"))
    cubes = [f"cube {i}" for i in range(8)]
    run = make_run(captions=early + cubes[:4] + late + cubes[4:], rows_per_part=8)
    stages = first_turn(FAKES | {"write": Half})
    state = engine.generate(run.manifest(), stages, progress=QUIET, engine="local")
    assert count_run(state)[0].failed.total() == 8
    run.switch("half mended")
    state = engine.rerun(
        run.manifest(), stages, "write", retry_failed=True, progress=QUIET, engine="local", replace=True
    )
    assert_sum_is_exact(state)
    assert [state.footer(state.steps["write"], part).total("failed") for part in (0, 1)] == [4, 0]
    assert count_run(state)[1].pending.total() == 0


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        ("paint", {}, "the stages are write, draw, sieve, shards"),
        ("draw", {"parts": range(3, 9)}, "has parts 0-4"),
    ],
)
def test_unknown_stage_or_part(run, stage, options, message):
    run.generate()
    with pytest.raises(UserError, match=message):
        run.rerun(stage, **options)


def test_rerun_before_generate(run):
    with pytest.raises(UserError, match=r"no run at .* yet"):
        run.rerun("draw")
    run.generate(wave=1)
    with pytest.raises(UserError, match="draw has not committed any of these parts"):
        run.rerun("draw", parts=range(2, 3))
    state = run.rerun("draw")
    assert [count.units_done for count in count_run(state)] == [1, 1, 1, 1]
