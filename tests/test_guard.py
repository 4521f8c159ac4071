"""Committed parts of an expensive stage are not replaced unasked; a threshold is."""

import pytest

from pipeline.errors import UserError
from tests.pipeline.runs import assert_sum_is_exact


def test_changed_key_of_an_expensive_stage_stops_and_asks(run):
    run.generate()
    before = run.inodes()
    with pytest.raises(UserError) as error:
        run.generate("diffusion.steps=9")
    message = str(error.value)
    assert message.startswith("draw: 5 committed parts")
    assert "diffusion.steps: 4 -> 9" in message
    assert "--replace" in message
    assert run.inodes() == before
    run.generate()
    assert run.inodes() == before


def test_replace_makes_it_and_what_follows_again(run):
    run.generate()
    before = run.inodes()
    run.generate("diffusion.steps=9", replace=True)
    assert made_again(run, before) == {"draw", "sieve", "shards"}


def test_interrupted_replacement_still_names_the_key(run):
    run.generate()
    run.generate("diffusion.steps=9", replace=True, wave=2)
    with pytest.raises(UserError, match=r"draw: 3 committed parts(.|\n)*diffusion\.steps: 4 -> 9"):
        run.generate("diffusion.steps=9")


def test_changed_weights_stop_too(run):
    run.generate()
    (run.folder / "weights" / "more.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match=r"diffusion\.model: \"content:"):
        run.generate()


def test_threshold_makes_only_the_light_stages_again(run):
    run.generate()
    before = run.inodes()
    state = run.generate("sieve.default.brightness=0.5")
    assert made_again(run, before) == {"sieve", "shards"}
    assert_sum_is_exact(state)


def test_rerun_is_consent_for_its_stage_only(run):
    run.generate()
    before = run.inodes()
    with pytest.raises(UserError, match=r"draw: 5 committed parts(.|\n)*diffusion\.steps"):
        run.rerun("write", "diffusion.steps=9", "write.greeting=hi")
    assert run.inodes() == before
    run.rerun("draw", "diffusion.steps=9")
    assert made_again(run, before) == {"draw", "sieve", "shards"}


def made_again(run, before):
    after = run.inodes()
    return {name.split("/")[0] for name in after if after[name] != before.get(name)}
