"""What is wrong is one message that names the key, before anything starts; a bad caption is a row."""

import pytest

from pipeline.engine.ledger import count_run
from pipeline.errors import UserError
from tests.pipeline.runs import assert_sum_is_exact


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("captions.file=missing.txt", r"captions\.file: there is no file missing\.txt"),
        ("captions.colum=text", r"unknown key 'captions\.colum'; did you mean 'captions\.column'\?"),
        ("tasks.mixture.explode=1", r"unknown task 'explode' in the manifest key tasks\.mixture"),
        ("tasks.prompts=nowhere", r"no task files .* in nowhere: check the manifest key tasks\.prompts"),
        ("diffusion.model=./no-weights", r"diffusion\.model: there are no weights at \./no-weights"),
        ("sieve.tasks.paint.brightness=1", r"sieve\.tasks\.paint: not a task of this run"),
    ],
)
def test_message_names_the_key(run, override, message):
    with pytest.raises(UserError, match=message):
        run.generate(override)
    assert not run.files()


def test_awkward_captions_are_rows(make_run):
    captions = ["a cube", "", "x" * 100_000, "bell\x07 and nul\x00", "a ball", "broken"]
    run = make_run(captions=captions)
    state = run.generate()
    written = count_run(state)[0]
    assert written.reasons["rejected", "empty_caption"] == 1
    assert (written.kept.total(), written.failed.total()) == (4, 1)
    assert_sum_is_exact(state)
