"""The words of a phrase, as the detector understands them.

Punctuation, special tokens and words that the tokenizer does not know get scores like any token, but they
name nothing: an unknown word is "found" in any picture. Their scores are ignored. A phrase with an unknown
word is not searched for at all: "a mauve car" would be found wherever there is a car.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stages.unknown_words import names_something
from stages.words import normalised

_ARTICLES = ("a", "an", "the")
_WITHIN_WORDS = {"-": "-", "\u2010": "-", "\u2011": "-", "'": "'", "\u2019": "'"}
"""Hyphens and apostrophes, kept between two letters ("t-shirt", "boat's")."""


def caption_of(phrase: str) -> str:
    """A phrase in the form that GroundingDINO reads: lower case, one sub-sentence, only a final full stop."""
    text = normalised(phrase).lower()  # phrases of a run are normalised, those of draw_edit may not be
    read = [_read_as(text, at) for at in range(len(text))]
    return " ".join([*"".join(read).split(), "."])


def _read_as(text: str, at: int) -> str:
    """The character in a caption: unchanged, a plain hyphen or apostrophe, or a space."""
    char = text[at]
    if char in _WITHIN_WORDS and 0 < at < len(text) - 1 and text[at - 1].isalnum() and text[at + 1].isalnum():
        return _WITHIN_WORDS[char]
    return char if names_something(char) else " "


def words_of(tokenizer: Any, captions: Sequence[str], tokens: Tensor) -> Tensor:
    """Which tokens belong to words that the tokenizer knows, bool [b,t].

    Articles count, as in GroundingDINO's own scores, unless a caption has no other word.

    Args:
        tokenizer: a tokenizer of transformers, with offsets.
        captions: b results of :func:`caption_of`.
        tokens: their token ids [b,t], padded.
    """
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokens.shape[1],
        return_offsets_mapping=True,
    )
    nothing = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids(".")}
    words = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (caption, ids, offsets) in enumerate(
        zip(captions, tokens.tolist(), encoded["offset_mapping"], strict=True)
    ):
        surfaces = [caption[start:end] for start, end in offsets]
        if all(s in _ARTICLES for s in surfaces if names_something(s)):
            continue
        for position, (token, surface) in enumerate(zip(ids, surfaces, strict=True)):
            words[row, position] = token not in nothing and names_something(surface)
    return words.to(tokens.device)
