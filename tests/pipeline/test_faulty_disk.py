"""An error of the disk at any read or write: a message, an exact ledger, then the same bytes."""

import errno
from contextlib import suppress

import pytest

from pipeline.errors import StageError, UserError
from pipeline.views.run import open_state
from tests.pipeline.faulty_disk import FaultyDisk
from tests.pipeline.runs import assert_sum_is_exact

CAPTIONS = [f"a red cube number {i}" for i in range(6)]
KEYS = {"rows_per_part": 4, "write": {"batch": 4}}


@pytest.fixture
def whole(make_run):
    run = make_run("whole", captions=CAPTIONS, **KEYS)
    run.generate()
    return run


def calls_of(run, monkeypatch, command) -> list[str]:
    disk = FaultyDisk(run.folder / "runs")
    with monkeypatch.context() as patch:
        disk.install(patch)
        command()
    return disk.calls


def strike(run, at, error, monkeypatch, command) -> None:
    """One command during which call number ``at`` fails; it ends well, or with a message for the user."""
    disk = FaultyDisk(run.folder / "runs", at, error)
    with monkeypatch.context() as patch:
        disk.install(patch)
        with suppress(UserError, StageError, OSError):  # of an OSError the command line prints the message
            command()
    with suppress(UserError):  # there may be no run yet
        assert_sum_is_exact(open_state(run.run))


@pytest.mark.parametrize("share", [pytest.param(8, id="one in 8"), pytest.param(1, marks=pytest.mark.full)])
def test_any_error_while_a_run_is_made(whole, make_run, monkeypatch, share):
    probe = make_run("probe", captions=CAPTIONS, **KEYS)
    number = len(calls_of(probe, monkeypatch, probe.generate))
    assert number > 100
    for at in range(1, number + 1, share):
        run = make_run(f"run {at}", captions=CAPTIONS, **KEYS)
        strike(
            run, at, [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE][at % 4], monkeypatch, run.generate
        )
        assert_sum_is_exact(run.generate())
        assert run.files() == whole.files(), at
        assert not list(run.run.rglob("*.tmp"))


@pytest.mark.parametrize("share", [pytest.param(8, id="one in 8"), pytest.param(1, marks=pytest.mark.full)])
def test_any_error_while_a_finished_run_is_looked_at_replaces_nothing(whole, monkeypatch, share):
    inodes = whole.inodes()
    for command in (whole.generate, lambda: open_state(whole.run).scan()):
        for at in range(1, len(calls_of(whole, monkeypatch, command)) + 1, share):
            strike(whole, at, errno.EMFILE, monkeypatch, command)
            assert whole.inodes() == inodes, at


def test_a_message_names_the_file(whole, monkeypatch):
    """What fails is told with its path, also where the system's error has none."""
    disk = FaultyDisk(whole.folder / "runs")
    with monkeypatch.context() as patch:
        disk.install(patch)
        whole.generate()
    reads = [n for n, call in enumerate(disk.calls, 1) if call.startswith("read ") and "write/00000" in call]
    faulty = FaultyDisk(whole.folder / "runs", reads[0])
    with monkeypatch.context() as patch:
        faulty.install(patch)
        with pytest.raises((OSError, UserError), match=r"write/00000\.parquet"):
            whole.generate()
