"""A cluster of two nodes that loses one: the run ends as one on a single machine does."""

import pytest

from pipeline.engine.actor import Actor
from pipeline.engine.jobs import Job
from pipeline.errors import StageError
from pipeline.store.folder import RunFolder
from stages.base import StageConfig
from stages.tasks import Tasks
from tests.pipeline.fake_stages import PLACED
from tests.pipeline.runs import ROOT
from tests.waiting import wait_for


def test_a_node_that_does_not_see_the_run_or_the_code_says_so(make_run, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = make_run()
    state = run.generate()
    steps = tuple(state.steps.values())
    elsewhere = RunFolder(run.folder / "not mounted here")
    job = Job(elsewhere, state.plan, steps, steps[0], PLACED["write"], StageConfig(), Tasks({}), {})
    stopped = Actor(str(ROOT)).take(job)
    assert "does not see" in stopped.message
    assert "key 'runs'" in stopped.message
    with pytest.raises(FileNotFoundError, match="every node of the cluster shares"):
        Actor(str(run.folder / "no code"))


def test_a_ray_whose_node_has_ended_is_not_taken_for_a_manifest_that_asks_too_much(
    make_run, ray_cluster, monkeypatch
):
    monkeypatch.setattr("ray.cluster_resources", dict)  # as after the only raylet was killed
    with pytest.raises(StageError, match="node processes have ended: run the command again"):
        make_run().generate(engine="ray")


def test_a_run_survives_the_loss_of_a_node(make_run, ray_cluster):
    second = ray_cluster.add_node(num_cpus=1)
    ray_cluster.wait_for_nodes()
    run, plain = make_run("cluster"), make_run("plain")
    rows_that_wait = [f"wait {row}" for row in (7, 11, 15)]  # a worker each, two here and one there
    for row in rows_that_wait:
        run.switch(row)
    driver = run.driver("draw.resources.workers=3", engine="ray")
    wait_for(lambda: len(run.processes("Draw")) == 3, driver)
    ray_cluster.remove_node(second, allow_graceful=False)
    for row in rows_that_wait:
        run.switch(row, on=False)
    assert driver.wait() == 0
    plain.generate()
    assert run.files() == plain.files()
    assert not list(run.run.glob("**/*.tmp"))
