import fcntl
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests.pipeline.runs import ROOT, FakeRun
from tests.toybox_runs import Run

settings.register_profile("editpairs", deadline=None, max_examples=50)
settings.load_profile("editpairs")

FIRST = ("tests/test_toybox_run.py", "tests/pipeline/test_ray_backend.py")
"""The workers begin with these. One makes the toybox run for both; the other mostly waits for Ray."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dear files first: the last ones are cheap, so that both workers end at about the same time."""

    def place(item: pytest.Item) -> int:
        file = item.path.relative_to(ROOT)
        if str(file) in FIRST:
            return FIRST.index(str(file))
        return len(FIRST) + (len(file.parts) > 2)  # tests of whole commands lie in no room

    items.sort(key=place)


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
    """A finished run that nobody may change. It is made once, and each worker has a copy."""
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    made, mine = Run(common / "toybox-made"), Run(tmp_path_factory.mktemp("toybox"))
    with (common / "toybox-made.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (common / "toybox-made.done").exists():
            made.generate_here()
            (common / "toybox-made.done").touch()
    shutil.copytree(made.folder, mine.folder)
    return mine
