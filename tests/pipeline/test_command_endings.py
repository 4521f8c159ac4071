"""However a command ends, its exit code says so, and it says one thing at most: in processes of their own."""

import os
import signal
import subprocess
import sys

import pytest

from tests.pipeline.runs import ROOT, FakeRun
from tests.waiting import wait_for_files

CODE = """
import stages, stages.sessions.turns
from tests.pipeline.fake_stages import FAKES, PLACED, Publish
stages.STAGES = FAKES
stages.sessions.turns.unrolled = lambda turns, rounds: PLACED
{before}
from pipeline.cli import main
main()
"""


def command(*arguments: object, before: str = "", **options) -> subprocess.Popen:
    """The command over the fake stages."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", CODE.format(before=before), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        **{"stdout": pipe, "stderr": pipe, **options},
    )


def generating(run: FakeRun, *overrides: str, engine: str = "local", **options) -> subprocess.Popen:
    sets = [part for override in overrides for part in ("--set", override)]
    return command("generate", run.path, "--engine", engine, *sets, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_with_a_message_and_without_a_loss(run, make_run, number):
    run.switch("wait 9")
    driver = generating(run)
    wait_for_files(run, "draw", 1, driver)
    driver.send_signal(number)
    _, errors = driver.communicate()
    assert driver.returncode == 128 + number
    assert errors.strip().startswith("stopped; what was committed stays")
    assert "Traceback" not in errors
    assert not list(run.run.rglob("*.tmp"))
    run.switch("wait 9", on=False)
    run.generate()
    whole = make_run("whole")
    whole.generate()
    assert run.files() == whole.files(), "no row failed by the signal"


def test_code_that_ends_the_process_does_not_end_it_silently(run):
    driver = generating(run, before="Publish.describe = classmethod(lambda *arguments: exit(0))")
    _, errors = driver.communicate()
    assert driver.returncode == 1
    assert errors.startswith("error: stopped: code of a stage or library ended the process (SystemExit: 0)")


def test_an_error_of_the_system_is_one_message_with_the_path(run, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    driver = generating(run, f"runs={tmp_path}/file/runs")
    _, errors = driver.communicate()
    assert driver.returncode == 2
    assert errors.startswith(f"error: {tmp_path}/file")
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", [["status"], ["status", "--help"]])
def test_a_reader_that_goes_away_is_no_error(run, arguments):
    run.generate()
    reading, writing = os.pipe()
    os.close(reading)
    ended = command(*arguments, run.run, stdout=writing)
    os.close(writing)
    _, errors = ended.communicate()
    assert (ended.returncode, errors) == (1, "")


def test_an_interrupt_while_ray_starts_and_while_workers_run(run):
    run.switch("wait 17")
    for number, stage in ((signal.SIGINT, ""), (signal.SIGTERM, "draw")):
        driver = generating(run, engine="ray", stdout=subprocess.DEVNULL)
        wait_for_files(run, stage, 1, driver)
        driver.send_signal(number)
        _, errors = driver.communicate()
        assert driver.returncode == 128 + number, errors
        assert errors.strip().startswith("stopped; what was committed stays")
        assert "Traceback" not in errors
        assert not list(run.run.rglob("*.tmp"))
