"""A run goes on after any interruption, and ends with the bytes of one that was never interrupted."""

import signal

import pytest

from pipeline.errors import UserError
from pipeline.store.new_file import temporary
from tests.pipeline.runs import assert_sum_is_exact
from tests.waiting import wait_for_files


def test_a_second_generate_finds_nothing_to_do(run):
    run.generate()
    before = run.inodes()
    events = (run.run / "events.jsonl").read_text()
    lock = (run.run / "manifest.lock.yaml").stat().st_ino
    run.generate()
    assert run.inodes() == before
    assert (run.run / "events.jsonl").read_text() == events
    assert (run.run / "manifest.lock.yaml").stat().st_ino == lock


def test_two_runs_write_the_same_bytes(make_run):
    first, second = make_run("one"), make_run("two")
    first.generate()
    second.generate()
    assert len(first.files()) == 1 + 3 * 5 + 3
    assert first.files() == second.files()


def test_killed_driver_goes_on_to_the_same_bytes(make_run):
    whole, killed = make_run("whole"), make_run("killed")
    whole.generate()
    killed.switch("wait 9")
    driver = killed.driver()
    wait_for_files(killed, "draw", 2, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    killed.switch("wait 9", on=False)
    committed = killed.inodes()
    assert sum(name.startswith("draw") for name in committed) == 2
    temporary(killed.run / "draw" / "00004.parquet", "0af3").write_bytes(b"half a part")
    state = killed.generate()
    assert killed.files() == whole.files()
    after = killed.inodes()
    assert {name: after[name] for name in committed} == committed
    assert not list(killed.run.rglob("*.tmp"))
    assert_sum_is_exact(state)


def test_damaged_part_is_made_again_and_nothing_else(run):
    run.generate()
    content, before = run.files(), run.inodes()
    path = run.run / "draw" / "00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    run.generate()
    assert run.files() == content
    after = run.inodes()
    assert [name for name in after if after[name] != before[name]] == ["draw/00002.parquet"]


def test_one_driver_at_a_time(run):
    run.switch("wait 9")
    driver = run.driver()
    wait_for_files(run, "draw", 1, driver)
    with pytest.raises(UserError, match=f"being written by process {driver.pid}"):
        run.generate()
    driver.kill()
    driver.wait()
    run.switch("wait 9", on=False)
    run.generate()
