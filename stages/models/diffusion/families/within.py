"""Prompts that are read within other words: which of a network's tokens are the prompt's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MARK = "\ue000"
"""Stands for a prompt; a character of no language."""


class Within:
    """Called as a tokenizer: the network's tokens, and their characters in the prompt.

    Tokens of the other words have empty offsets, as special tokens have.

    Args:
        tokenizer: the text encoder's.
        written: the whole text of a prompt.
        kept: of the number of tokens in the whole text, the positions of those that the network gets.
    """

    def __init__(
        self, tokenizer: Any, written: Callable[[str], str], kept: Callable[[int], Sequence[int]]
    ) -> None:
        self.tokenizer, self._written, self._kept = tokenizer, written, kept
        self._before = written(_MARK).index(_MARK)

    def __call__(self, prompt: str, **options: Any) -> Mapping[str, Any]:
        """``input_ids`` and ``offset_mapping`` of a prompt's tokens; there are no options."""
        whole = self.tokenizer(self._written(prompt), return_offsets_mapping=True)
        kept = self._kept(len(whole["input_ids"]))
        return {
            "input_ids": [whole["input_ids"][place] for place in kept],
            "offset_mapping": [self._inside(whole["offset_mapping"][place], len(prompt)) for place in kept],
        }

    def _inside(self, span: tuple[int, int], length: int) -> tuple[int, int]:
        """Characters of the whole text as those of a prompt of a length; (0, 0) if they are none of it."""
        first, last = max(0, span[0] - self._before), min(length, span[1] - self._before)
        return (first, last) if first < last else (0, 0)
