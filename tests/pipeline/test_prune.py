"""``prune``: what it drops, what still works afterwards, and what a crash or damage does to it."""

import io
import os
import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pipeline.audit.file_checks import recount
from pipeline.engine import state as states
from pipeline.engine.ledger import count_run
from pipeline.engine.progress import Progress
from pipeline.engine.pruning import droppable, prunable
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.steps import build_steps
from pipeline.store import location as storage
from pipeline.store.sealed import DamagedFileError
from pipeline.views.pruned import pruned_lines
from stages.publisher import PublisherConfig
from stages.sessions.turns import unrolled
from tests.pipeline.pruned_runs import PLACED, SketchedRun
from tests.pipeline.runs import ROOT, assert_sum_is_exact

EARLY = ("write", "sketch", "draw")
LATE = ("sieve", "shards")


@pytest.fixture
def make_sketched(tmp_path, switches):
    def make(name: str = "sketched", captions: list[str] | None = None) -> SketchedRun:
        return SketchedRun(tmp_path / name, captions)

    return make


@pytest.fixture
def run(make_sketched):
    run = make_sketched()
    run.generate()
    return run


def columns(run: SketchedRun, stage: str) -> set[str]:
    return {name for path in (run.run / stage).iterdir() for name in pq.read_schema(path).names}


def test_pictures_that_no_later_filtering_reads_are_dropped_and_nothing_else(run):
    before = {stage: columns(run, stage) for stage in PLACED}
    assert run.prune() == [("sketch", part) for part in range(5)]
    after = {stage: columns(run, stage) for stage in PLACED}
    assert after.pop("sketch") == {"id", "status", "reason", "title"}
    assert after == {stage: names for stage, names in before.items() if stage != "sketch"}
    assert run.prune() == []


@pytest.mark.parametrize(("turns", "rounds"), [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_of_the_shipped_stages_it_is_the_first_picture_alone(turns, rounds):
    chain = unrolled(turns, rounds)
    steps = build_steps(chain, {name: PublisherConfig() for name in chain}, dict.fromkeys(chain, ""))
    assert droppable(steps, chain) == {"source": ("source_image",)}


@pytest.mark.parametrize("kept", [False, True])
@given(bound=st.floats(0, 1), batch=st.integers(1, 9))
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_filtering_again_gives_the_bytes_of_the_unpruned_run(
    kept, make_sketched, tmp_path_factory, bound, batch
):
    bounds = (f"sieve.default.brightness={bound}", f"sieve.batch={batch}")
    folder = tmp_path_factory.mktemp("pair")
    whole, pruned = SketchedRun(folder / "a" / "x"), SketchedRun(folder / "b" / "x")
    with pytest.MonkeyPatch.context() as patch:
        if kept:  # footers are read from their cache
            patch.setattr(states, "MIN_FOOTERS_TO_CACHE", 1)
            patch.setattr(storage, "SETTLED_S", 0)
        for each in (whole, pruned):
            each.generate()
        pruned.prune()
        inodes = pruned.inodes(*EARLY)
        for each in (whole, pruned):
            state = each.generate(*bounds)
        assert pruned.files(*LATE) == whole.files(*LATE)
        assert (pruned.run / "README.md").read_bytes() == (whole.run / "README.md").read_bytes()
        assert pruned.inodes(*EARLY) == inodes
        assert_sum_is_exact(state)
        assert all(found.fine for found in recount(pruned.opened()))


def test_the_funnel_stays_and_every_command_is_told_what_is_gone(run):
    before = count_run(run.opened())
    run.prune()
    state = run.opened()
    assert count_run(state) == before
    (line,) = pruned_lines(state)
    assert line.startswith("pruned: sketch has no lines in 5 parts (")
    assert all(found.fine for found in recount(state))


def test_an_early_change_makes_the_pruned_parts_again_and_says_so(run, make_sketched):
    other = make_sketched("other")
    other.generate()
    other.generate("diffusion.steps=5", replace=True)
    before = run.files("sketch")
    run.prune()
    told = io.StringIO()
    run.generate("diffusion.steps=5", replace=True, progress=Progress(Console(file=told), "quiet"))
    assert "sketch: 5 pruned parts are made again for draw" in told.getvalue()
    assert run.files("sketch") == before
    assert run.files() == other.files()


def test_a_lost_part_brings_back_its_own_picture_alone(run):
    run.prune()
    (run.run / "draw" / "00003.parquet").unlink()
    assert [each.unit for each in prunable(run.opened(), PLACED)] == []
    inodes = run.inodes("sketch")
    state = run.generate()
    changed = {name for name, inode in run.inodes("sketch").items() if inode != inodes[name]}
    assert changed == {"sketch/00003.parquet"}
    assert not any(count.pending.total() for count in count_run(state))
    assert run.prune() == [("sketch", 3)]


def test_a_part_whose_readers_have_not_finished_stays_whole(run):
    (run.run / "draw" / "00002.parquet").unlink()
    assert run.prune() == [("sketch", part) for part in (0, 1, 3, 4)]


def test_a_changed_setting_of_the_pruned_stage_is_guarded_as_always(run):
    run.prune()
    with pytest.raises(UserError, match=r"sketch: 5 committed parts(.|\n)*sketch.ink"):
        run.generate("sketch.ink=blue")
    run.generate("sketch.ink=blue", replace=True)
    assert pruned_lines(run.opened()) == []


def test_failed_rows_of_a_pruned_part_are_tried_again_with_the_whole_part(make_sketched):
    run = make_sketched(captions=["smudge", *(f"a red cube {i}" for i in range(7))])
    run.generate()
    before = run.files()
    run.prune()
    run.rerun("sketch", retry_failed=True)
    whole = [part for part, footer in enumerate(footers(run.opened())) if footer.pruned is None]
    assert len(whole) == 1
    assert run.files()[f"sketch/{whole[0]:05d}.parquet"] == before[f"sketch/{whole[0]:05d}.parquet"]


@pytest.mark.parametrize("place", [0.3, 0.999])
def test_a_damaged_part_is_not_made_to_look_sound(run, place):
    path = run.run / "sketch" / "00002.parquet"
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    state = run.opened()
    if ("sketch", 2) in state.damaged:  # its footer is: it is made again, never pruned
        assert ("sketch", 2) not in run.prune()
    else:
        with pytest.raises(DamagedFileError):
            run.prune()
    assert path.read_bytes() == content


def test_damage_to_a_pruned_part_is_found(run):
    run.prune()
    path = run.run / "sketch" / "00002.parquet"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    wrong = next(found for found in recount(run.opened()) if not found.fine)
    assert (wrong.check, wrong.where[:21]) == ("part", "sketch/00002.parquet:")


@pytest.mark.parametrize("number", [0, 3])
def test_a_killed_prune_leaves_a_whole_run(run, number):
    before = run.files()
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.pruned_runs", str(run.path), str(number)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    state = run.generate()
    assert sum(f.pruned is not None for f in footers(state)) == number
    assert not list(run.run.rglob("*.tmp"))
    assert not any(count.pending.total() for count in count_run(state))
    assert run.files(*LATE) == {name: old for name, old in before.items() if name.startswith(LATE)}
    assert len(run.prune()) == 5 - number


def footers(state: RunState):
    step = state.steps["sketch"]
    return [state.footer(step, part) for part in range(state.plan.parts)]


def test_a_run_that_lost_its_lock_stops_before_the_next_file(run):
    left = iter([True, True, False])

    def check() -> None:
        if not next(left):
            raise UserError("the lock is another's")

    with pytest.raises(UserError, match="another's"):
        run.prune(check)
    assert sum(f.pruned is not None for f in footers(run.opened())) == 2
