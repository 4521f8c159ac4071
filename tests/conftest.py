import pytest
from hypothesis import settings

from tests.pipeline.runs import FakeRun
from tests.toybox_runs import Run

settings.register_profile("editpairs", deadline=None, max_examples=50)
settings.load_profile("editpairs")


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Makes runs of the fake stages; by default over 20 captions: 5 parts, 3 shards."""
    monkeypatch.setenv("FAKE_SWITCHES", str(tmp_path / "switches"))
    (tmp_path / "switches").mkdir()

    def make(name: str = "run", captions: list[str] | None = None, **keys: object) -> FakeRun:
        return FakeRun(tmp_path / name, captions, **keys)

    return make


@pytest.fixture
def run(make_run):
    return make_run()


@pytest.fixture(scope="session")
def toybox_run(tmp_path_factory) -> Run:
    """A finished run that nobody may change. In a plain loop, which loads the libraries once."""
    made = Run(tmp_path_factory.mktemp("toybox"))
    made.call("generate", "--engine", "local")
    return made
