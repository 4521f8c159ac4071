"""Captions as the tokens of several text encoders."""

import pytest
import torch

from stages.edit.prompt_to_prompt.alignment import refine_map, replace_map, tokenize
from stages.edit.prompt_to_prompt.captions import Captions
from stages.models.diffusion.prompts import Segment
from tests.stages.tiny_pipelines import sentencepiece
from toybox.recipes.tokenizer import build_tokenizer

SOURCE, SWAPPED, LONGER = "a red car on a beach", "a blue ball on a beach", "a red car and a dog on a beach"
FIRST, SECOND = 32, 24


def encoders() -> list[Segment]:
    """CLIP's and T5's, as Stable Diffusion 3 has them."""
    return [Segment(build_tokenizer(), FIRST), Segment(sentencepiece(), SECOND)]


@pytest.mark.parametrize("control", ["replace", "refine", "auto"])
@pytest.mark.parametrize("target", [SWAPPED, LONGER])
def test_every_encoder_has_the_map_of_its_own_tokens(control, target):
    if control == "replace" and target == LONGER:
        with pytest.raises(ValueError, match="equally many words"):
            Captions(encoders(), SOURCE, target).token_map(control)
        return
    tokens = Captions(encoders(), SOURCE, target).token_map(control)
    assert tokens.matrix.shape == (FIRST + SECOND,) * 2
    replaced = control == "replace" or (control == "auto" and target == SWAPPED)
    first = 0
    for segment in encoders():
        source, edited = (tokenize(segment.tokenizer, text) for text in (SOURCE, target))
        made = (
            replace_map(source, edited, segment.length)
            if replaced
            else refine_map(source.ids, edited.ids, segment.length)
        )
        part = slice(first, first + segment.length)
        assert torch.equal(tokens.matrix[part, part], made.matrix)
        assert torch.equal(tokens.own[part], made.own)
        first += segment.length
    assert not tokens.matrix[:FIRST, FIRST:].any()
    assert not tokens.matrix[FIRST:, :FIRST].any()


def test_words_are_found_in_every_encoders_tokens():
    captions = Captions(encoders(), SOURCE, SWAPPED)
    pieces = []
    first = 0
    for segment in encoders():
        ids = tokenize(segment.tokenizer, SWAPPED).ids
        pieces += [(first + place, segment.tokenizer.decode([number])) for place, number in enumerate(ids)]
        first += segment.length
    changed = {place for place, piece in pieces if piece.strip() in ("blue", "ball")}
    assert len(changed) == 4, "each of two words is a token of both encoders"
    assert set(captions.changed()) == changed
    assert set(captions.target_words("the blue ball").nonzero().flatten().tolist()) == changed
    assert captions.source_words("a red car").sum() == captions.target_words("a blue ball").sum()


def test_states_that_are_not_made_of_the_caption_are_the_sources():
    """Stable Diffusion 3 without T5 has zeros in its place."""
    captions = Captions([encoders()[0], Segment(None, 5)], SOURCE, SWAPPED)
    tokens = captions.token_map("auto")
    assert torch.equal(tokens.matrix[FIRST:, FIRST:], torch.eye(5))
    assert not tokens.own.any()
    assert captions.length == FIRST + 5
    assert max(captions.changed()) < FIRST


def test_words_that_an_encoder_did_not_read_have_no_tokens_there():
    """CLIP reads the beginning of a caption that T5 reads whole."""
    short = build_tokenizer()
    short.model_max_length = 5
    captions = Captions([Segment(short, 5), encoders()[1]], SOURCE, "a red car on a car")
    assert not captions.target_words("a red car")[:5].equal(torch.zeros(5))
    assert all(position >= 5 for position in captions.changed())
    tokens = captions.token_map("replace")
    assert torch.equal(tokens.matrix[:5, :5], torch.eye(5))


def test_a_word_without_a_counterpart_keeps_its_own_attention():
    """The source's word was cut off, the target's was not, because the words before it have fewer tokens."""
    tokenizer = sentencepiece()
    tokenizer.model_max_length = 6
    source, target = (tokenize(tokenizer, text) for text in ("zebra car", "a car"))
    assert source.words[1] == []
    tokens = replace_map(source, target, 6)
    assert tokens.own.nonzero().flatten().tolist() == target.words[1]
    assert not tokens.matrix[:, target.words[1]].any()
