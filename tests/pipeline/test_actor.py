"""What a worker's process answers: text that can always be sent, and whose fault it was."""

import errno
import pickle
import signal
import threading

import pytest

from pipeline.engine.actor import Actor, Stopped
from pipeline.engine.jobs import Job, Unit
from pipeline.engine.losses import Died
from pipeline.errors import StageError, UserError
from pipeline.store.folder import RunFolder
from pipeline.store.sealed_writer import SealedWriter
from stages.base import StageConfig
from stages.placed import first_turn
from stages.tasks import Tasks
from tests.pipeline.fake_stages import PLACED, Write
from tests.pipeline.runs import ROOT


@pytest.fixture
def actor(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Actor(str(ROOT))
    for number, handler in before.items():
        signal.signal(number, handler)


def job(run, stage: type[Write] = Write) -> Job:
    state = run.generate()
    placed = first_turn({"write": stage})["write"]
    steps, manifest = tuple(state.steps.values()), run.manifest()
    return Job(
        state.folder, state.plan, steps, steps[0], placed, manifest.section("write", StageConfig), {}, {}
    )


class UnsendableError(BaseException):
    """Holds a lock, and needs two arguments to be made again."""

    def __init__(self, first, second):
        super().__init__("half \ud800 a pair")
        self.lock = threading.Lock()


class Unstartable(Write):
    def __init__(self, config, tasks, *, turn=1):
        raise UnsendableError(1, 2)


def test_an_error_that_cannot_be_sent_is_told_all_the_same(run, actor, monkeypatch):
    assert actor.take(job(run, Unstartable)) is None
    stopped = pickle.loads(pickle.dumps(actor.run(Unit(0, (0,)))))
    assert stopped.message == "write could not start: UnsendableError: half \\ud800 a pair"
    assert "UnsendableError" in stopped.details
    assert isinstance(stopped.error(), StageError)

    def fail(*arguments, **options):
        raise UnsendableError(1, 2)

    monkeypatch.setattr("pipeline.engine.worker.Worker.run", fail)
    assert pickle.loads(pickle.dumps(actor.run(Unit(0, (0,))))).message.startswith(
        "write, unit 0: UnsendableError"
    )
    monkeypatch.setattr("pipeline.engine.actor.Worker", fail)
    assert actor.take(job(run)).message.startswith("write could not start: UnsendableError")


def test_a_file_that_cannot_be_written_is_an_error_of_the_user(run, actor, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert actor.take(job(run)) is None
    monkeypatch.setattr(SealedWriter, "write", full)
    stopped = actor.run(Unit(0, (0,)))
    assert stopped == Stopped(f"{run.run}/write/00000.parquet: No space left on device", user=True)
    assert isinstance(stopped.error(), UserError)


def test_a_process_that_is_not_to_be_trusted_says_so_itself(run, actor):
    class Spoiled(Write):
        def decide(self, row):
            raise RuntimeError("CUDA error: device-side assert triggered")

    assert actor.take(job(run, Spoiled)) is None
    died = actor.run(Unit(0, (0,)))
    assert died == Died("RuntimeError: CUDA error: device-side assert triggered", by_itself=True)


def test_a_node_that_does_not_see_the_run_or_the_code_says_so(run, actor):
    state = run.generate()
    steps = tuple(state.steps.values())
    elsewhere = RunFolder(run.folder / "not mounted here")
    job = Job(elsewhere, state.plan, steps, steps[0], PLACED["write"], StageConfig(), Tasks({}), {})
    stopped = actor.take(job)
    assert "does not see" in stopped.message
    assert "key 'runs'" in stopped.message
    with pytest.raises(FileNotFoundError, match="every node of the cluster shares"):
        Actor(str(run.folder / "no code"))
