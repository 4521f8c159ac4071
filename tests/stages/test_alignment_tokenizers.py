"""Words and their tokens for tokenizers whose tokens begin with the space before a word."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from stages.edit.prompt_to_prompt.alignment import refine_map, replace_map, tokenize

LENGTH = 16


def fast(tokenizer: Tokenizer, single: str, *specials: str) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(list(specials))
    numbers = [(each, tokenizer.token_to_id(each)) for each in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=numbers)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sentencepiece(single: str, *specials: str) -> PreTrainedTokenizerFast:
    """As T5 and Gemma: Unigram, a space becomes part of the next token, or a token of its own."""
    pieces = ["\u2581a", "\u2581red", "\u2581cat", "\u2581", "z", "eb", "ra", "s", "\u2581on", "\u2581blue"]
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return fast(tokenizer, single, *specials)


def byte_bpe(single: str, *specials: str) -> PreTrainedTokenizerFast:
    """As Qwen: byte-level BPE, whose tokens begin with their space."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("\u0120", "r"),
        ("\u0120r", "e"),
        ("\u0120re", "d"),
        ("\u0120", "c"),
        ("\u0120c", "a"),
        ("\u0120ca", "t"),
    ]
    words = letters + [first + second for first, second in merges]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return fast(tokenizer, single, *specials)


def specials_of(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


KINDS = {
    "T5": sentencepiece("$A </s>", "</s>"),
    "Gemma": sentencepiece("<bos> $A", "<bos>"),
    "Qwen, with five tokens after the caption": byte_bpe(
        "<|im_start|> $A <|im_end|> <|1|> <|2|> <|3|> <|4|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|1|>",
        "<|2|>",
        "<|3|>",
        "<|4|>",
    ),
}


@pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("text", ["a red cat", "a  zebra on a red  cat", "red", "zebras a", "cat, red!"])
def test_every_word_has_its_own_tokens(tokenizer, text):
    prompt = tokenize(tokenizer, text)
    special = specials_of(tokenizer)
    for word, tokens in zip(prompt.text.split(), prompt.words, strict=True):
        pieces = tokenizer.convert_ids_to_tokens([prompt.ids[token] for token in tokens])
        spelled = "".join(pieces).replace("\u2581", "").replace("\u0120", "")
        assert spelled == word or "<unk>" in spelled
    own = [token for tokens in prompt.words for token in tokens]
    assert own == [place for place, number in enumerate(prompt.ids) if number not in special]
    assert (prompt.before, prompt.after) == (own[0], own[-1] + 1)


@pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
def test_a_caption_maps_to_itself_and_special_tokens_to_their_own_kind(tokenizer):
    source, target = tokenize(tokenizer, "a red cat"), tokenize(tokenizer, "a red zebra")
    assert torch.equal(replace_map(source, source, LENGTH).matrix, torch.eye(LENGTH))
    assert torch.equal(refine_map(source.ids, source.ids, LENGTH).matrix, torch.eye(LENGTH))
    matrix = replace_map(source, target, LENGTH).matrix
    assert torch.equal(matrix.sum(0), torch.ones(LENGTH))
    for place, number in enumerate(target.ids):
        if number in specials_of(tokenizer):
            (taken,) = matrix[:, place].nonzero().flatten().tolist()
            assert source.ids[taken] == number
    for old, new in zip(source.words[:2], target.words[:2], strict=True):
        assert torch.equal(matrix[old][:, new], torch.eye(len(new)))
    assert matrix[source.words[2]][:, target.words[2]].sum() == pytest.approx(len(target.words[2]))


@pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
def test_an_empty_caption_has_special_tokens_alone(tokenizer):
    prompt = tokenize(tokenizer, "")
    assert prompt.words == []
    assert torch.equal(replace_map(prompt, prompt, LENGTH).matrix, torch.eye(LENGTH))
