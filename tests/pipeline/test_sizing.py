"""``batch: auto``: found by halving, remembered in the run's events, and a number to every stage."""

import json

import pytest

from pipeline.engine.sizing import FIRST, fitted_batch, sized
from pipeline.errors import UserError
from pipeline.store import events
from pipeline.store.location import locate
from stages.base import AUTO, StageConfig


def config(**keys) -> StageConfig:
    return StageConfig.model_validate(keys)


def test_auto_is_the_size_that_fitted_or_a_first_try():
    gpu = config(batch="auto", resources={"gpus": 1})
    assert gpu.batch == AUTO
    assert sized(gpu, None).batch == FIRST
    assert sized(gpu, 12).batch == 12


def test_without_a_gpu_auto_is_the_default():
    assert sized(config(batch="auto"), None).batch == config().batch


def test_a_number_is_left_as_it_is():
    assert sized(config(batch=3, resources={"gpus": 1}), 2).batch == 3


def test_the_size_that_fitted_is_read_from_the_steps_own_events(tmp_path):
    path = locate(str(tmp_path / "events.jsonl"))
    assert fitted_batch(path, "edit") is None
    for stage, told in (("edit", {"smallest_batch": 16}), ("edit", {}), ("source", {"smallest_batch": 2})):
        events.append(path, stage=stage, unit=0, **told)
    assert fitted_batch(path, "edit") == 16


def test_auto_is_written_as_auto_and_read_again():
    dumped = config(batch="auto").model_dump(mode="json")
    assert dumped["batch"] == "auto"
    assert config(**dumped) == config(batch="auto")


@pytest.mark.parametrize("batch", [0, -1, "all", 1.5])
def test_other_words_and_zero_are_refused(run, batch):
    with pytest.raises(UserError, match=r"write\.batch"):
        run.manifest(f"write.batch={json.dumps(batch)}")


def test_a_run_finds_its_size_and_starts_with_it_the_next_time(make_run, monkeypatch):
    """The fake stage has memory for batches of two rows; the first try is four."""
    monkeypatch.setattr("pipeline.engine.sizing.FIRST", 4)
    monkeypatch.setattr("pipeline.engine.preflight.Machine.here", lambda: _machine())
    run = make_run("auto")
    run.switch("small memory")
    keys = ["write.batch=auto", "write.resources={gpus: 1}"]
    run.generate(*keys, wave=1)
    path = locate(str(run.run / "events.jsonl"))
    assert fitted_batch(path, "write") == 2
    run.generate(*keys)
    told = [json.loads(line) for line in (run.run / "events.jsonl").read_text().splitlines()]
    tried = [event.get("smallest_batch") for event in told if event.get("stage") == "write"]
    assert tried[0] == 2
    assert set(tried[1:]) == {None}, "batches of two rows fit at once"


def _machine():
    from pipeline.engine.preflight import Machine

    return Machine(2, 1)
