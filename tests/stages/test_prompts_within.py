"""Which of a network's tokens are a prompt's, for families that read it within other words."""

import pytest

from stages.edit.prompt_to_prompt.captions import Captions
from stages.models.diffusion.families.pixart import PixArtPrompts
from tests.stages.drawn_families import KINDS, loaded


@pytest.fixture(scope="module", params=KINDS)
def prompts(request, tmp_path_factory):
    folder = KINDS[request.param].save(tmp_path_factory.mktemp(request.param))
    return loaded(request.param, folder).prompts


def spelled(prompts, tokens: list[int]) -> str:
    (segment,) = prompts.segments
    tokenizer = getattr(segment.tokenizer, "tokenizer", segment.tokenizer)
    return tokenizer.decode(tokens).strip()


@pytest.mark.parametrize("caption", ["a red car", "a beach on  a ball red", "car"])
def test_words_have_their_tokens_where_the_network_gets_them(prompts, caption):
    captions = Captions(prompts.segments, caption, caption)
    ((prompt, _),) = [reading.prompts for reading in captions.readings]
    assert len(prompt.words) == len(caption.split())
    for word, places in zip(caption.split(), prompt.words, strict=True):
        assert places
        assert spelled(prompts, [prompt.ids[place] for place in places]) == word
    encoded = prompts.encode([caption])
    assert encoded.states.shape[1] == captions.length
    seen = (encoded.mask[0] > 0).sum()
    assert max(place for word in prompt.words for place in word) < seen


def test_only_the_tokens_of_a_changed_word_are_changed(prompts):
    """Its states differ, and with language models, which read forwards, those before it are the same."""
    captions = Captions(prompts.segments, "a red car on a beach", "a red ball on a beach")
    ((source, target),) = [reading.prompts for reading in captions.readings]
    changed = captions.changed()
    assert changed == target.words[2]
    before, after = prompts.encode([source.text, target.text]).states
    first = min(changed)
    differs = (before != after).any(-1)
    assert differs[first]
    if not isinstance(prompts, PixArtPrompts):
        assert not differs[:first].any()
