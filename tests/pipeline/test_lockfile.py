"""The lock of a run: what it holds, and what is read from those that earlier versions wrote."""

import shutil

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.manifest.lockfile import locked_tasks, read_lock
from pipeline.manifest.manifest import tasks_of
from pipeline.store.location import Location
from pipeline.views.run import open_state
from tests.pipeline.runs import FakeRun
from tests.runs_elsewhere import rewrite_lock


@pytest.fixture
def finished(run: FakeRun) -> FakeRun:
    run.generate()
    return run


def lock_of(run: FakeRun) -> Location:
    return run.run / "manifest.lock.yaml"


def forget_tasks(content: dict) -> None:
    del content["tasks"], content["known_tasks"]


def test_the_tasks_of_a_run_are_those_of_its_files_when_they_are_gone(finished):
    tasks = tasks_of(finished.manifest())
    shutil.rmtree(finished.folder / "prompts")
    locked = locked_tasks(lock_of(finished))
    assert dict(locked) == dict(tasks)
    assert locked.known == tasks.known


def test_a_task_of_a_file_that_the_mixture_does_without_stays_known(finished):
    path = finished.folder / "prompts" / "style.yaml"
    path.write_text((finished.folder / "prompts" / "add.yaml").read_text().replace("index: 1", "index: 9"))
    finished.generate()
    assert set(locked_tasks(lock_of(finished))) == {"remove", "add", "color"}
    assert locked_tasks(lock_of(finished)).known == {"remove", "add", "color", "style"}


def test_the_lock_of_an_earlier_version_is_read_beside_its_task_files(finished):
    tasks = locked_tasks(lock_of(finished))
    rewrite_lock(lock_of(finished), forget_tasks)
    assert dict(locked_tasks(lock_of(finished))) == dict(tasks)


def test_the_lock_of_an_earlier_version_without_its_task_files_says_what_to_do(finished):
    rewrite_lock(lock_of(finished), forget_tasks)
    shutil.rmtree(finished.folder / "prompts")
    with pytest.raises(UserError, match=r"earlier version.*generate again"):
        locked_tasks(lock_of(finished))


def test_generate_adds_the_tasks_to_the_lock_of_an_earlier_version_and_runs_nothing(finished):
    files = finished.inodes()
    rewrite_lock(lock_of(finished), forget_tasks)
    finished.generate()
    assert set(read_lock(lock_of(finished))["tasks"]) == {"remove", "add", "color"}
    assert finished.inodes() == files


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("steps"),
        lambda content: content.update(steps="x"),
        lambda content: content.update(identities=[1]),
        lambda content: content.update(tasks="x"),
        lambda content: content.update(known_tasks=None),
        lambda content: content["steps"][0].update(turn=-1),
        lambda content: content["steps"][0].update(stage="../x"),
        lambda content: content["steps"][0].update(light="maybe"),
        lambda content: content["steps"][1].update(inputs=None),
        lambda content: content["steps"][1].update(inputs=["nothing"]),
        lambda content: content["steps"][-1].update(parts_per_unit=0),
    ],
)
def test_a_lock_of_another_shape_is_a_message_for_every_reader(finished, change):
    """Its checksum is right: another version wrote it, or a person did."""
    files = finished.inodes()
    rewrite_lock(lock_of(finished), change)
    for reading in (lambda: open_state(finished.run), finished.generate):
        with pytest.raises(UserError, match=r"manifest\.lock\.yaml is damaged.*Delete it"):
            reading()
    lock_of(finished).unlink()
    finished.generate()
    assert finished.inodes() == files
    open_state(finished.run)


def test_every_shipped_task_survives_the_lock():
    """A lock is YAML: what is read from it is the task again, tuples and all."""
    from stages.tasks import Task, load_tasks
    from tests.pipeline.runs import ROOT

    for task in load_tasks(ROOT / "prompts").values():
        written = yaml.safe_dump(task.model_dump(mode="json"), allow_unicode=True)
        assert Task.model_validate(yaml.safe_load(written)) == task
