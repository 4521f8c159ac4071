"""A cluster of two nodes that loses one: the run ends as one on a single machine does."""

import sys

import pytest

from pipeline.engine.jobs import Job
from pipeline.engine.ray_backend import _Actor
from pipeline.store.folder import RunFolder
from stages.base import StageConfig
from stages.tasks import Tasks
from tests.pipeline.fake_stages import PLACED
from tests.pipeline.runs import ROOT
from tests.test_resume import wait_for_files


def test_a_node_that_does_not_see_the_run_or_the_code_says_so(make_run, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = make_run()
    state = run.generate()
    steps = tuple(state.steps.values())
    elsewhere = RunFolder(run.folder / "not mounted here")
    job = Job(elsewhere, state.plan, steps, steps[0], PLACED["write"], StageConfig(), Tasks({}), {})
    stopped = _Actor(str(ROOT)).take(job)
    assert "does not see" in stopped.message
    assert "key 'runs'" in stopped.message
    with pytest.raises(FileNotFoundError, match="every node of the cluster shares"):
        _Actor(str(run.folder / "no code"))


@pytest.fixture
def cluster(make_run, monkeypatch):
    """Two nodes of a core each; their workers have this test's environment."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield made
    made.shutdown()


def test_a_run_survives_the_loss_of_a_node(make_run, cluster):
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    run, plain = make_run("cluster"), make_run("plain")
    driver = run.driver("draw.pause=0.5", f"ray.address={cluster.address}", engine="ray")
    wait_for_files(run, "draw", 1)
    cluster.remove_node(second, allow_graceful=False)
    assert driver.wait(240) == 0, sys.stderr
    plain.generate("draw.pause=0.5")
    assert run.files() == plain.files()
    assert not list(run.run.glob("**/*.tmp"))
