"""Rounds: rows without a passing picture are drawn again, and the run stays exact and resumable."""

import shutil
import signal
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.file_checks import recount
from pipeline.audit.regenerate import regenerate
from pipeline.engine.jobs import Job, Unit
from pipeline.engine.ledger import count_run
from pipeline.engine.worker import Worker
from pipeline.manifest.manifest import tasks_of
from pipeline.store import events
from pipeline.views.rounds import count_rounds
from pipeline.views.rows import rows
from pipeline.views.run import open_state
from stages.base import StageConfig
from tests.pipeline.fake_rounds import RoundsRun, assert_rounds_add_up, expected, placed
from tests.waiting import wait_for_files

LATER = ("source.r2", "mask.r2", "filter.r2", "source.r3", "mask.r3", "filter.r3")


@pytest.fixture
def make_run(make_run, tmp_path):
    """Makes runs in rounds; the shared fixture clears the switches."""
    return lambda name="run", captions=None, **keys: RoundsRun(tmp_path / name, captions, **keys)


@pytest.fixture
def run(make_run):
    return make_run()


def published(run: RoundsRun) -> dict[str, int]:
    """The seed of each published row."""
    files = sorted((run.run / "shards").glob("*.parquet"))
    return {row["id"]: row["seed"] for file in files for row in pq.read_table(file).to_pylist()}


def planned(run: RoundsRun) -> dict[str, int]:
    return {row["id"]: row["seed"] for row in pq.read_table(run.run / "plan.parquet").to_pylist()}


def test_a_row_leaves_with_the_first_round_that_keeps_it(run):
    state = run.generate()
    outcomes = {row: expected(seed, 3) for row, seed in planned(run).items()}
    kept = {row: seed for row, (reason, _, seed) in outcomes.items() if reason == "kept"}
    assert len({round for reason, round, _ in outcomes.values() if reason == "kept"}) == 3
    left = published(run)
    assert left.items() <= kept.items()
    assert len(left) == len(kept) - 1, "select rejects one"
    counts = {count.name: count for count in count_run(state)}
    for round, name in enumerate(("filter", "filter.r2", "filter.r3"), 1):
        assert counts[name].kept.total() == sum(o[:2] == ("kept", round) for o in outcomes.values())
    assert_rounds_add_up(state)


@given(
    rows=st.integers(1, 14),
    rounds=st.integers(1, 4),
    brightness=st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.1]),
    seed=st.integers(0, 99),
    part=st.integers(1, 6),
    wave=st.none() | st.integers(1, 3),
)
@settings(max_examples=12)
def test_sums_are_exact_and_every_row_is_where_its_seeds_lead(rows, rounds, brightness, seed, part, wave):
    with tempfile.TemporaryDirectory() as folder:
        captions = [f"cube {n}" if n % 5 else " " for n in range(1, rows + 1)]
        settings = {"rounds": rounds, "seed": seed, "rows_per_part": part, "captions.duplicates": "keep"}
        run = RoundsRun(Path(folder) / "run", captions)
        state = run.generate(
            *(f"{key}={value}" for key, value in settings.items()),
            f"filter.default.brightness={brightness}",
            wave=wave,
        )
        assert_rounds_add_up(state)
        done = [part for part in range(state.plan.parts) if state.done(state.steps["select"], part)]
        assert len(done) == min(state.plan.parts, wave or state.plan.parts)
        for part in done:
            reads = {"plan": ["caption", "seed"], "write": [], "mask": ["mask"], "filter": ["choice"]}
            start = {row["id"]: row["seed"] for row in rows_of_plan(run, part)}
            for row in rows_in(state, part, reads):
                if not row["caption"].strip():
                    assert row["step"] == "write"
                    continue
                reason, round, last = expected(start[row["id"]], rounds, brightness)
                suffix = "" if round == 1 else f".r{round}"
                stage = {"dark": "mask", "never": "mask"}.get(reason, "filter")
                assert row["step"] == stage + suffix
                assert row["reason"] == ("" if reason == "kept" else reason)
                assert row["seed"] == last
                assert row.get("choice") == (last if reason == "kept" else None)
        assert all(finding.fine or finding.check == "unfinished" for finding in recount(state))


def rows_of_plan(run: RoundsRun, part: int) -> list[dict]:
    return pq.ParquetFile(run.run / "plan.parquet").read_row_group(part).to_pylist()


def rows_in(state, part: int, reads) -> list[dict]:
    return list(rows(state, part, reads))


def test_one_round_is_the_chain_as_it_is_and_writes_no_further_file(run):
    assert [(p.step, p.given, p.later) for p in placed(1).values()] == [(n, (), ()) for n in placed(1)]
    run.generate("rounds=1")
    first = run.files("source", "mask", "filter")
    shutil.rmtree(run.run)
    run.generate("rounds=3")
    assert run.files("source", "mask", "filter") == first, "the first round does not depend on others"
    assert {path.split("/")[0] for path in run.files()} == {
        "plan.parquet", "write", "source", "mask", "filter", *LATER, "select", "shards",
    }  # fmt: skip


def test_more_rounds_continue_a_finished_run(run, make_run):
    run.generate("rounds=1")
    run.painted()
    before = run.inodes("source", "mask", "filter", "write")
    run.generate("rounds=3")
    assert run.inodes("source", "mask", "filter", "write") == before
    assert not set(run.painted()) & set(planned(run).values())
    whole = make_run("whole")
    whole.generate()
    assert run.files() == whole.files()


def test_a_driver_killed_in_a_later_round_goes_on_to_the_same_bytes(make_run):
    whole, killed = make_run("whole"), make_run("killed")
    whole.generate()
    again = pq.read_table(whole.run / "source.r2" / "00003.parquet")["id"].to_pylist()
    captions = {row["id"]: row["caption"] for row in rows_of_plan(whole, 3)}
    stop = captions[again[0]].split()[-1]
    driver = killed.driver("rounds=1")
    assert driver.wait() == 0
    killed.switch(f"wait {stop}")
    driver = killed.driver()
    wait_for_files(killed, "source.r2", 3, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    killed.switch(f"wait {stop}", on=False)
    committed = killed.inodes(*LATER)
    state = killed.generate()
    assert killed.files() == whole.files()
    assert {name: killed.inodes(*LATER)[name] for name in committed} == committed
    assert_rounds_add_up(state)


@pytest.mark.parametrize("bound", [0.3, 0.8])
def test_another_bound_paints_only_rows_that_were_not_painted_in_that_round(run, make_run, bound):
    run.generate()
    known = set(run.painted())
    state = run.rerun("filter", f"filter.default.brightness={bound}")
    assert_rounds_add_up(state)
    fresh = make_run("fresh")
    new = run.painted()
    fresh.generate(f"filter.default.brightness={bound}")
    assert run.files() == fresh.files()
    assert not known & set(new)
    outcomes = [expected(seed, 3, bound) for seed in planned(run).values()]
    assert bool(new) == (bound > 0.6), "a looser bound needs no new picture"
    assert all(reason != "kept" or seed in known | set(new) for reason, _, seed in outcomes)


def test_rows_whose_input_has_changed_are_painted_again(run, make_run):
    run.generate()
    later = {row["seed"] for name in run.files("source.r2", "source.r3") for row in read(run, name)}
    run.painted()
    run.generate("write.greeting=hi", replace=True)
    assert later <= set(run.painted()), "their instruction is another one"
    fresh = make_run("fresh")
    fresh.generate("write.greeting=hi")
    assert run.files() == fresh.files()


def read(run: RoundsRun, name: str) -> list[dict]:
    return pq.ParquetFile(run.run / name).read().to_pylist()


def test_a_later_round_made_again_by_hand_reuses_nothing(run):
    run.generate()
    run.painted()
    content = run.files()
    again = pq.read_table(run.run / "source.r2" / "00001.parquet").num_rows
    run.rerun("source.r2", parts=range(1, 2))
    assert len(run.painted()) == again > 0
    assert run.files() == content


def test_failed_rows_of_a_later_round_are_retried(make_run):
    captions = [f"cube {n}" for n in range(12)]
    clean, run = make_run("clean", captions), make_run("run", captions)
    clean.generate()
    row = pq.read_table(clean.run / "source.r2" / "00001.parquet")["id"].to_pylist()[0]
    number = next(r["caption"].split()[-1] for r in rows_of_plan(clean, 1) if r["id"] == row)
    run.generate("rounds=1")
    run.switch(f"exit {number}")
    state = run.generate()
    counts = {count.name: count for count in count_run(state)}
    assert counts["source.r2"].failed.total() == 1
    assert_rounds_add_up(state)
    run.switch(f"exit {number}", on=False)
    state = run.rerun("source.r2", retry_failed=True)
    assert_rounds_add_up(state)
    assert run.files() == clean.files()


def test_a_row_of_a_later_round_is_made_again_equal(run):
    run.generate()
    state = open_state(str(run.run))
    row, _ = next((row, o) for row, s in planned(run).items() if (o := expected(s, 3))[:2] == ("kept", 3))
    verdicts = list(regenerate(run.manifest(), placed(3), state, row))
    assert [verdict.stage for verdict in verdicts][-3:] == ["source.r3", "mask.r3", "filter.r3"]
    assert len(verdicts) >= 7
    assert not any(verdict.different for verdict in verdicts)
    assert [verdict.status for verdict in verdicts][-1] == "kept"


def test_each_round_tells_its_rows_and_its_time(run):
    state = run.generate()
    rounds = count_rounds(state, count_run(state), events.spent(run.run / "events.jsonl"))
    outcomes = [expected(seed, 3) for seed in planned(run).values()]
    kept = [sum(o[:2] == ("kept", round) for o in outcomes) for round in (1, 2, 3)]
    assert [count.kept for count in rounds] == kept
    assert [count.so_far for count in rounds] == [kept[0], kept[0] + kept[1], sum(kept)]
    assert rounds[0].drawn == rounds[2].first == len(outcomes)
    assert all(count.spent.worker_seconds > 0 for count in rounds)
    single = run.generate("rounds=1")
    assert not count_rounds(single, count_run(single), events.spent(run.run / "events.jsonl"))


def test_a_setting_of_a_drawing_stage_makes_every_round_again(run, make_run):
    run.generate()
    run.generate("mask.least=80", replace=True)
    fresh = make_run("fresh")
    fresh.generate("mask.least=80")
    assert run.files() == fresh.files()


def test_rows_that_run_alone_or_never_have_the_columns_of_their_file(run):
    state = run.generate()
    manifest, step = run.manifest(), state.steps["source.r2"]
    job = Job(
        folder=state.folder, plan=state.plan, steps=tuple(state.steps.values()), step=step,
        placed=placed(3)["source.r2"], config=manifest.section("source", StageConfig),
        tasks=tasks_of(manifest), models={},
    )  # fmt: skip
    worker, path = Worker(job), state.path(step, 1)
    before, ids = path.read_bytes(), pq.read_table(path)["id"].to_pylist()
    worker.run(Unit(1, (1,), careful=True, suspects=(ids[0],)))
    assert path.read_bytes() == before
    hashes = pq.read_table(path)["made_from"].to_pylist()
    assert len(set(hashes)) == len(ids) > 1
    worker.run(Unit(1, (1,), careful=True, poison=(ids[0],)))
    made = pq.read_table(path).to_pylist()
    assert [row["status"] for row in made] == ["failed", *["kept"] * (len(ids) - 1)]
    assert [row["made_from"] for row in made] == hashes
    run.painted()
    worker.run(Unit(1, (1,), reuse=True))
    assert not run.painted(), "a record is kept as it is, failed or not"
    assert pq.read_table(path).to_pylist() == made
