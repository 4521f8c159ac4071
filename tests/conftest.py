import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadGroupScheduling

from tests.pipeline.runs import ROOT, FakeRun
from tests.toybox_runs import Run

settings.register_profile("editpairs", deadline=None, max_examples=50)
settings.load_profile("editpairs")

SHARED = ("toybox_run", "ray_cluster")
"""The dearest fixtures. The tests of each come first and in one worker, which makes the fixture once."""


@pytest.hookimpl(tryfirst=True)  # before xdist takes the groups' names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def first(item: pytest.Item) -> int:
        names = getattr(item, "fixturenames", ())
        return next((place for place, name in enumerate(SHARED) if name in names), len(SHARED))

    items.sort(key=first)
    for item in items:
        if (place := first(item)) < len(SHARED):
            item.add_marker(pytest.mark.xdist_group(SHARED[place]))


class ByFileOrGroup(LoadGroupScheduling):
    """Give a worker a whole group of tests at a time, or those of a file that are in no group."""

    def _split_scope(self, nodeid: str) -> str:
        return super()._split_scope(nodeid).split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFileOrGroup | None:
    return ByFileOrGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.fixture(scope="session")
def switches(tmp_path_factory) -> Path:
    """The folder whose files steer the fake stages, in every process that runs them; empty at first."""
    folder = tmp_path_factory.mktemp("switches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_SWITCHES", str(folder))
        yield folder


@pytest.fixture
def make_run(tmp_path, switches):
    """Makes runs of the fake stages; by default over 20 captions: 5 parts, 3 shards."""
    shutil.rmtree(switches)
    switches.mkdir()

    def make(name: str = "run", captions: list[str] | None = None, **keys: object) -> FakeRun:
        return FakeRun(tmp_path / name, captions, **keys)

    return make


@pytest.fixture
def run(make_run):
    return make_run()


@pytest.fixture(scope="session")
def _cluster(switches):
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_prestart_worker_first_driver", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield made
    made.shutdown()


@pytest.fixture
def ray_cluster(_cluster, monkeypatch):
    """One Ray, of 2 CPUs, that all runs of the fake stages join: a start of their own costs many seconds."""
    monkeypatch.setenv("RAY_ADDRESS", _cluster.address)
    return _cluster


@pytest.fixture(scope="session")
def toybox_run(tmp_path_factory) -> Run:
    """A finished run that nobody may change."""
    made = Run(tmp_path_factory.mktemp("toybox"))
    made.generate_here()
    return made
