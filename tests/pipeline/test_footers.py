"""The footers that are kept: they never tell anything else than the files do."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.engine import state
from pipeline.engine.ledger import count_run
from pipeline.engine.state import RunState
from pipeline.store import footers
from pipeline.store import location as storage
from tests.pipeline.runs import FakeRun

TICKS_S = 0.02
"""More than a tick of the clock that stamps files."""


@pytest.fixture
def eager(monkeypatch):
    """Keep footers of small runs too, and files soon after they were written."""
    monkeypatch.setattr(state, "MIN_FOOTERS_TO_CACHE", 1)
    monkeypatch.setattr(storage, "SETTLED_S", TICKS_S)


def opened(run: FakeRun) -> RunState:
    """The finished run, without its drivers' knowledge."""
    made = run.generate()
    return RunState(made.folder, made.plan, list(made.steps.values()))


def units(of: RunState) -> list[tuple[str, int]]:
    return [(step.name, n) for step in of.steps.values() for n in range(step.unit_count(of.plan.parts))]


def told(of: RunState) -> list[object]:
    """All that a state says."""
    each = [(of.footer(of.steps[s], n), of.done(of.steps[s], n)) for s, n in units(of)]
    return [each, count_run(of)]


def again(of: RunState) -> RunState:
    return RunState(of.folder, of.plan, list(of.steps.values()))


def no_reading(monkeypatch) -> None:
    monkeypatch.setattr(footers, "read_footer", lambda path, place: pytest.fail(f"{path} was read"))


CHANGES = st.one_of(
    st.tuples(
        st.sampled_from(["replace", "write over", "truncate", "remove", "set its time back"]),
        st.integers(0, 200),
    ),
    st.tuples(st.sampled_from(["wait", "cut what is kept", "spoil what is kept", "forget"]), st.just(0)),
)


@given(changes=st.lists(CHANGES, min_size=1, max_size=8))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_files_a_scan_equals_reading_them(changes, two_runs, eager, tmp_path_factory):
    finished, other = two_runs
    folder = tmp_path_factory.mktemp("copy") / "fake"
    shutil.copytree(finished.folder.root, folder)
    watched = RunState(type(finished.folder)(folder), finished.plan, list(finished.steps.values()))
    for what, number in changes:
        stage, unit = units(finished)[number % len(units(finished))]
        step = finished.steps[stage]
        change(what, Path(watched.path(step, unit)), Path(other.path(step, unit)), folder / "footers.parquet")
        watched.scan()
        fresh = again(watched)
        fresh.scan()
        assert told(watched) == told(fresh) == told(again(watched))


def change(what: str, path: Path, other: Path, kept: Path) -> None:
    """``other`` is a file of the same size with another footer."""
    if what == "wait":
        time.sleep(1.5 * TICKS_S)
    elif what == "replace":
        shutil.copy(other, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)
    elif what == "write over":
        path.write_bytes(other.read_bytes())
    elif what == "set its time back" and path.exists():
        before = path.stat()
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "truncate" and path.exists():
        os.truncate(path, path.stat().st_size - 10)
    elif what == "remove":
        path.unlink(missing_ok=True)
    elif what == "forget":
        kept.unlink(missing_ok=True)
    elif kept.exists():
        content = bytearray(kept.read_bytes())
        content[len(content) // 3] ^= 255
        kept.write_bytes(content[: len(content) // 2] if what == "cut what is kept" else content)


@pytest.fixture
def two_runs(make_run):
    """Finished runs of the same plan whose files have the same sizes and other footers."""
    first, second = make_run("first"), make_run("second")
    finished, other = opened(first), opened(second)
    second.content["write"]["greeting"] = "kindly"
    second.save()
    second.generate(replace=True)
    write = finished.steps["write"]
    sizes = {Path(run.path(write, 0)).stat().st_size for run in (finished, other)}
    assert len(sizes) == 1
    return finished, other


def test_nothing_is_read_twice(run, eager, monkeypatch):
    made = opened(run)
    time.sleep(1.5 * TICKS_S)
    made.scan()
    expected = told(made)
    no_reading(monkeypatch)
    made.scan()
    fresh = again(made)
    fresh.scan()
    assert told(fresh) == told(made) == expected


def test_files_just_written_are_not_kept(run, eager, monkeypatch):
    monkeypatch.setattr(storage, "SETTLED_S", 3600)
    made = opened(run)
    made.scan()
    assert not made.folder.footers.exists()
    monkeypatch.setattr(storage, "SETTLED_S", TICKS_S)
    for path in made.folder.root.rglob("*.parquet"):
        os.utime(path, (time.time() + 3600, time.time() + 3600))  # a clock that was set back
    made.scan()
    assert not made.folder.footers.exists()


def test_what_another_version_kept_is_not_read(run, eager, monkeypatch):
    made = opened(run)
    time.sleep(1.5 * TICKS_S)
    made.scan()
    kept, done = footers.read_cached(made.folder.footers, made.plan.digest, made._basis())
    assert [(stage, unit) for stage, files in kept.items() for unit in files] == units(made)
    assert [(stage, unit) for stage, files in done.items() for unit in files] == units(made)
    monkeypatch.setattr(footers, "VERSION", footers.VERSION + 1)
    assert footers.read_cached(made.folder.footers, made.plan.digest, made._basis()) == ({}, {})


def test_a_file_that_was_not_kept_may_have_changed_under_what_was_done(two_runs, eager):
    """Its downstream was done and kept, while it was too new to be."""
    finished, other = two_runs
    step = finished.steps["draw"]
    path = Path(finished.path(step, 0))
    time.sleep(1.5 * TICKS_S)
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    finished.scan()
    assert all(finished.done(finished.steps[stage], unit) for stage, unit in units(finished))
    path.write_bytes(Path(other.path(step, 0)).read_bytes())
    fresh = again(finished)
    fresh.scan()
    assert told(fresh) == told(again(finished))
    assert not all(fresh.done(fresh.steps[stage], unit) for stage, unit in units(fresh))


def test_what_was_done_in_another_chain_or_plan_is_asked_again(run, eager):
    made = opened(run)
    time.sleep(1.5 * TICKS_S)
    made.scan()
    first, *rest = made.steps.values()
    others = [
        RunState(made.folder, made.plan, [replace(first, fingerprint="f" * 32), *rest]),
        RunState(made.folder, replace(made.plan, digest="d" * 32), [first, *rest]),
    ]
    for other in others:
        other.scan()
        assert not any(other.done(other.steps[stage], unit) for stage, unit in units(made))


def test_a_run_that_cannot_be_written_to_is_told_of_all_the_same(run, eager, monkeypatch):
    made = opened(run)
    time.sleep(1.5 * TICKS_S)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(state, "cache", refuse)
    made.scan()
    assert told(made) == told(again(made))


def test_small_runs_keep_nothing(run):
    opened(run).scan()
    assert not run.generate().folder.footers.exists()
