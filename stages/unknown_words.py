"""Words for which a tokenizer has no token. A model's output about such a word is meaningless."""

import unicodedata
from typing import Any


def names_something(text: str) -> bool:
    """Whether a text contains a letter, a digit, a combining mark, or a symbol such as an emoji."""
    return any(unicodedata.category(char)[0] in "LNM" or unicodedata.category(char) == "So" for char in text)


def unknown_words(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The words of a text that a tokenizer of transformers, with offsets, reads as its unknown token.

    Empty if the unknown token also serves another purpose, like CLIP's end of text: then no word is marked
    unknown.
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
