"""What of a phrase the detector reads as words.

Punctuation, special tokens and words that the tokenizer does not know get scores like any token, but they
name nothing: an unknown word is "found" in any picture. They never count, and a phrase with an unknown word
is not looked for at all: "a mauve car" would be found wherever a car is.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ARTICLES = ("a", "an", "the")
_WITHIN_WORDS = {"-": "-", "\u2010": "-", "\u2011": "-", "'": "'", "\u2019": "'"}
"""Hyphens and apostrophes, which stay between two letters ("t-shirt", "boat's")."""


def caption_of(phrase: str) -> str:
    """A phrase as GroundingDINO reads it: lower case, one sub-sentence without punctuation, and a full stop."""
    text = unicodedata.normalize("NFC", phrase).lower()
    kept = [_kept(text, at) for at in range(len(text))]
    return " ".join([*"".join(kept).split(), "."])


def _kept(text: str, at: int) -> str:
    char = text[at]
    if char in _WITHIN_WORDS and 0 < at < len(text) - 1 and text[at - 1].isalnum() and text[at + 1].isalnum():
        return _WITHIN_WORDS[char]
    return char if _names_something(char) else " "


def _names_something(text: str) -> bool:
    """Whether a text has a letter, a digit, a mark on one, or a sign such as an emoji."""
    return any(unicodedata.category(char)[0] in "LNM" or unicodedata.category(char) == "So" for char in text)


def words_of(tokenizer: Any, captions: Sequence[str], tokens: Tensor) -> Tensor:
    """Which tokens stand for words that the tokenizer knows, bool [b,t].

    Articles count, as in GroundingDINO's own scores, but not where a caption has no other word.

    Args:
        tokenizer: of transformers, with offsets.
        captions: of :func:`caption_of`, b.
        tokens: their ids [b,t], padded.
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
        if all(s in _ARTICLES for s in surfaces if _names_something(s)):
            continue
        for position, (token, surface) in enumerate(zip(ids, surfaces, strict=True)):
            words[row, position] = token not in nothing and _names_something(surface)
    return words.to(tokens.device)


def unknown_words(tokenizer: Any, caption: str) -> tuple[str, ...]:
    """The words of a caption that the tokenizer has no token for."""
    encoded = tokenizer(caption, return_offsets_mapping=True)
    surfaces = [
        caption[start:end]
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if token == tokenizer.unk_token_id
    ]
    return tuple(surface for surface in surfaces if _names_something(surface))
