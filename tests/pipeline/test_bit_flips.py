"""Any single flipped bit of a finished run is found, or leaves every count, decision and row as it was."""

import random
import shutil
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.audit.file_checks import check_checksums, recount
from pipeline.engine.ledger import count_run
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.lockfile import read_lock
from pipeline.store import events
from pipeline.store.sealed import Place, check_digest, read_metadata
from pipeline.views.run import open_state
from tests.pipeline.runs import FakeRun

NO_CONTENT = (".lock", "last_error.txt")
"""Files that nothing is read from."""


def found(run: Path) -> bool:
    """Whether ``validate`` would say that something is wrong with the files."""
    try:
        state = open_state(run)
        looked_at = chain(recount(state), check_checksums(run / "shards", of_run=True))
        return not all(finding.fine for finding in looked_at)
    except (UserError, OSError):
        return True


def said(run: Path) -> object:
    """All that is read from a run: its ledger and its rows."""
    state = open_state(run)
    counts = count_run(RunState(state.folder, state.plan, list(state.steps.values())))
    return counts, [pq.read_table(path).to_pylist() for path in sorted((run / "shards").glob("*.parquet"))]


def flip(path: Path, bit: int) -> bytes:
    """Flip a bit; what was there before is returned."""
    before = path.read_bytes()
    changed = bytearray(before)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    return before


def files_of(run: FakeRun) -> list[Path]:
    return [path for path in sorted(Path(run.run).rglob("*")) if path.is_file() and path.stat().st_size]


def check(run: FakeRun, bits: list[tuple[Path, int]]) -> None:
    assert not found(run.run)
    expected = said(run.run)
    for path, bit in bits:
        before = flip(path, bit)
        if not found(run.run):
            assert path.name in NO_CONTENT, (path, bit)
            assert said(run.run) == expected, (path, bit)
        path.write_bytes(before)


@pytest.fixture
def small(make_run):
    run = make_run(captions=["a red cube", "a broken cube", " "], rows_per_part=2)
    run.generate()
    return run


def test_some_flipped_bits(small):
    rng = random.Random(0)
    sizes = [(path, path.stat().st_size) for path in files_of(small)]
    drawn = [(path, rng.randrange(8 * size)) for path, size in sizes for _ in range(300 // len(sizes))]
    check(small, drawn)


@pytest.mark.full
def test_every_flipped_bit(small):
    """By the check that ``found`` asks of that kind of file: all of them for every bit would take a day."""
    run = Path(small.run)
    for path in files_of(small):
        if path.name in NO_CONTENT:
            continue
        content = bytearray(path.read_bytes())
        place = read_metadata(path, None)[0] if path.suffix == ".parquet" else None
        for bit in range(8 * len(content)):
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            assert is_noticed(run, path, place), (path, bit)
            content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)


def is_noticed(run: Path, path: Path, place: dict | None) -> bool:
    """Whether the one file is found to be damaged."""
    try:
        if place is not None:
            check_digest(path, Place(place["run"], place["stage"], place["unit"]))
        elif path.name == "events.jsonl":
            return events.count_damaged(path) > 0
        elif path.name == "manifest.lock.yaml":
            read_lock(path)
        else:
            return not all(finding.fine for finding in check_checksums(run / "shards", of_run=True))
    except UserError:
        return True
    return False


def test_kept_footers_with_flipped_bits_tell_nothing_else(make_run, monkeypatch):
    """``footers.parquet`` is a copy: one that is damaged is not read."""
    monkeypatch.setattr("pipeline.engine.state.MIN_FOOTERS_TO_CACHE", 1)
    monkeypatch.setattr("pipeline.store.location.SETTLED_S", 0.0)
    run = make_run()
    run.generate()
    state = open_state(run.run)
    state.scan()
    kept = Path(run.run) / "footers.parquet"
    expected, rng = count_run(state), random.Random(0)
    for _ in range(100):
        before = flip(kept, rng.randrange(8 * kept.stat().st_size))
        state = open_state(run.run)
        monkeypatch.setattr("pipeline.engine.state.MIN_FOOTERS_TO_CACHE", 1000)
        state.scan()
        assert count_run(state) == expected
        kept.write_bytes(before)


def test_a_run_whose_files_were_swapped_is_found(make_run):
    """Whole files in each other's places are no single bit, and as wrong."""
    run = make_run()
    run.generate()
    one, other = (Path(run.run) / "shards" / f"train-0000{n}-of-00003.parquet" for n in (0, 1))
    shutil.move(one, run.folder / "aside")
    shutil.move(other, one)
    shutil.move(run.folder / "aside", other)
    assert found(run.run)
    with suppress(UserError):
        run.generate()
    assert not found(run.run)
