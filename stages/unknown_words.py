"""Words that a tokenizer has no token for: what a model makes of them says nothing."""

import unicodedata
from typing import Any


def names_something(text: str) -> bool:
    """Whether a text has a letter, a digit, a mark on one, or a sign such as an emoji."""
    return any(unicodedata.category(char)[0] in "LNM" or unicodedata.category(char) == "So" for char in text)


def unknown_words(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The words of a text that a tokenizer of transformers, with offsets, reads as its unknown token.

    None where that token serves for another purpose too, as CLIP's end of text does: it has no other.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        return ()
    encoded = tokenizer(text, return_offsets_mapping=True)
    surfaces = [
        text[start:end]
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if token == unknown
    ]
    return tuple(surface for surface in surfaces if names_something(surface))
