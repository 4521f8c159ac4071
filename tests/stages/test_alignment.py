"""Token maps of Prompt-to-Prompt."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.edit.prompt_to_prompt.alignment import (
    Prompt,
    changed_positions,
    published_replace_map,
    refine_map,
    replace_map,
    reweighted,
    token_map,
    tokenize,
    word_positions,
)
from toybox.recipes.tokenizer import build_tokenizer

LENGTH = 32


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_words_know_their_tokens(tokenizer):
    prompt = tokenize(tokenizer, "a  zebra and a red   car")
    assert prompt.text == "a zebra and a red car"
    assert len(prompt.words) == 6
    assert [len(tokens) for tokens in prompt.words] == [1, 5, 1, 1, 1, 1]
    assert [token for word in prompt.words for token in word] == list(range(1, len(prompt.ids) - 1))


def test_equal_prompts_map_to_themselves(tokenizer):
    prompt = tokenize(tokenizer, "a red car on a beach")
    for mapped in (replace_map(prompt, prompt, LENGTH), refine_map(prompt.ids, prompt.ids, LENGTH)):
        assert torch.equal(mapped.matrix, torch.eye(LENGTH))
        assert not mapped.own.any()


def test_replace_takes_over_the_old_words_attention(tokenizer):
    source, target = (tokenize(tokenizer, f"a {color} car") for color in ("red", "blue"))
    assert torch.equal(replace_map(source, target, LENGTH).matrix, torch.eye(LENGTH))


def test_replace_after_a_word_of_more_tokens_stays_aligned(tokenizer):
    source, target = tokenize(tokenizer, "a car on a beach"), tokenize(tokenizer, "a zebra on a beach")
    matrix = replace_map(source, target, LENGTH).matrix
    old, new = source.words[1], target.words[1]
    assert torch.equal(matrix[old][:, new], torch.ones(1, len(new)))
    for before, after in zip(source.words[2:], target.words[2:], strict=True):
        assert matrix[before[0], after[0]] == 1
    assert torch.equal(matrix.sum(0), torch.ones(LENGTH)), "every target token takes one token's mass"


def test_replace_of_a_word_of_fewer_tokens_takes_the_mean(tokenizer):
    source, target = tokenize(tokenizer, "a zebra on a beach"), tokenize(tokenizer, "a car on a beach")
    matrix = replace_map(source, target, LENGTH).matrix
    assert torch.allclose(matrix[source.words[1], target.words[1][0]], torch.full((5,), 0.2))
    assert torch.allclose(matrix.sum(0), torch.ones(LENGTH))


def test_replace_refuses_another_number_of_words(tokenizer):
    with pytest.raises(ValueError, match="equally many words"):
        replace_map(tokenize(tokenizer, "a car"), tokenize(tokenizer, "a red car"), LENGTH)


def test_refine_lets_new_words_attend_themselves(tokenizer):
    source, target = tokenize(tokenizer, "a car on a beach"), tokenize(tokenizer, "a striped car on a beach")
    mapped = token_map(source, target, LENGTH)
    assert mapped.own.nonzero().flatten().tolist() == target.words[1]
    assert mapped.matrix[source.words[1][0], target.words[2][0]] == 1
    assert not mapped.matrix[:, target.words[1][0]].any()


def test_token_map_is_replace_where_the_words_can_be_paired(tokenizer):
    source, target = tokenize(tokenizer, "a red car"), tokenize(tokenizer, "a red tree")
    assert not token_map(source, target, LENGTH).own.any()


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_refine_maps_only_equal_tokens_and_keeps_their_order(source, target):
    source, target = [100, *source, 101], [100, *target, 101]
    mapped = refine_map(source, target, LENGTH)
    last = -1
    for position, token in enumerate(target):
        column = mapped.matrix[:, position]
        assert column.sum() + mapped.own[position] == 1
        if mapped.own[position]:
            continue
        aligned = int(column.argmax())
        assert source[aligned] == token
        assert aligned > last
        last = aligned
    assert mapped.own[0] == mapped.own[len(target) - 1] == 0, "start and end are shared"


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.data())
def test_replace_gives_every_target_token_one_tokens_mass(counts, data):
    others = data.draw(st.lists(st.integers(1, 3), min_size=len(counts), max_size=len(counts)))
    mapped = replace_map(spelled(counts), spelled(others), LENGTH)
    assert torch.allclose(mapped.matrix.sum(0), torch.ones(LENGTH))


def spelled(counts: list[int]) -> Prompt:
    """A prompt whose words have so many tokens."""
    words, position = [], 1
    for count in counts:
        words.append(list(range(position, position + count)))
        position += count
    return Prompt("", list(range(position + 1)), words)


def test_the_published_mapper_is_misaligned_after_a_word_of_more_tokens():
    source, target = spelled([1, 1, 1, 1]), spelled([1, 2, 1, 1])
    named = [
        Prompt(text, p.ids, p.words)
        for text, p in zip(("a b c d", "a xy c d"), (source, target), strict=True)
    ]
    matrix = published_replace_map(*named, LENGTH).matrix
    assert matrix[2, 2] == matrix[2, 3] == 0.5, "divided by the target's count"
    assert matrix[4, 4] == 1, "the fourth target token takes source token 4, not 3"
    assert not matrix[3].any(), "source token 3 is left unused"
    same = [
        Prompt(text, p.ids, p.words) for text, p in zip(("a b", "a x"), [spelled([1, 1])] * 2, strict=True)
    ]
    assert torch.equal(published_replace_map(*same, LENGTH).matrix, replace_map(*same, LENGTH).matrix)


def test_weights_scale_what_a_token_takes_and_keeps(tokenizer):
    source, target = tokenize(tokenizer, "a car"), tokenize(tokenizer, "a red car")
    mapped, weights = token_map(source, target, LENGTH), torch.ones(LENGTH)
    weights[2], weights[3] = -2.0, 0.5
    scaled = reweighted(mapped, weights)
    assert scaled.own[2] == -2
    assert torch.equal(scaled.matrix[:, 3], 0.5 * mapped.matrix[:, 3])
    assert torch.equal(scaled.matrix[:, 1], mapped.matrix[:, 1])


def test_words_are_found_where_they_stand_together(tokenizer):
    prompt = tokenize(tokenizer, "a red ball and a red zebra")
    assert word_positions(prompt, "Red zebra") == [*prompt.words[5], *prompt.words[6]]
    assert word_positions(prompt, "a ball") == prompt.words[2], "an article is no part of the object"
    for phrase in ("ball red", "blue", "", "?!"):
        with pytest.raises(ValueError, match="are not in the caption"):
            word_positions(prompt, phrase)


@pytest.mark.parametrize(
    ("caption", "phrase", "place"),
    [
        ("a red barn, and a tree", "the barn", [2]),
        ('the "red barn" (old)', "Red Barn", [1, 2]),
        ("a caf\u00e9 by night", "cafe\u0301", [1]),
        ("grandma\u2019s old house", "grandma's", [0]),
        ("a tree,barn and car", "barn", [1]),
        ("\u732b\u3068\u72ac", "\u72ac", [0]),
    ],
)
def test_a_word_is_the_same_with_other_punctuation_quotes_and_accents(tokenizer, caption, phrase, place):
    prompt = tokenize(tokenizer, caption)
    wanted = [token for word in place for token in prompt.words[word]]
    assert wanted
    assert word_positions(prompt, phrase) == wanted


def test_a_comma_does_not_make_a_word_a_changed_one(tokenizer):
    source, target = tokenize(tokenizer, "a red barn and a car"), tokenize(tokenizer, "a red barn, or a car")
    assert changed_positions(source, target) == target.words[3]


def test_changed_words_are_those_the_source_lacks(tokenizer):
    source = tokenize(tokenizer, "a red car on a beach")
    swapped, longer = (
        tokenize(tokenizer, f"a {words} on a beach") for words in ("red boat", "striped red car")
    )
    assert changed_positions(source, swapped) == swapped.words[2]
    assert changed_positions(source, longer) == longer.words[1]
    assert changed_positions(source, source) == []
