"""A source's caption and its edit's as tokens, in every segment of a prompt's states.

Stable Diffusion 3 reads a caption twice, by CLIP and by T5. Each reading has a map, changed tokens and words
of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from stages.edit.prompt_to_prompt.alignment import (
    Prompt,
    TokenMap,
    changed_positions,
    refine_map,
    replace_map,
    token_map,
    tokenize,
    word_positions,
)
from stages.models.diffusion.prompts import Segment


@dataclass(frozen=True)
class Reading:
    """Both captions as one segment's tokens; None if the segment is not made of them."""

    prompts: tuple[Prompt, Prompt] | None
    length: int

    def token_map(self, control: str) -> TokenMap:
        """The map by a candidate's ``control``; tokens that no caption made take the source's attention."""
        if self.prompts is None:
            return TokenMap(torch.eye(self.length), torch.zeros(self.length))
        source, target = self.prompts
        if control == "replace":
            return replace_map(source, target, self.length)
        if control == "refine":
            return refine_map(source.ids, target.ids, self.length)
        return token_map(source, target, self.length)


class Captions:
    """The captions of a source and of its edit.

    Args:
        segments: of the model's prompts.
        source, target: the captions.
    """

    def __init__(self, segments: Sequence[Segment], source: str, target: str) -> None:
        self.readings = [
            Reading(
                None
                if segment.tokenizer is None
                else (tokenize(segment.tokenizer, source), tokenize(segment.tokenizer, target)),
                segment.length,
            )
            for segment in segments
        ]
        self.length = sum(reading.length for reading in self.readings)
        """Tokens of a prompt in all segments, T."""

    def token_map(self, control: str) -> TokenMap:
        """The map of all segments; no segment's tokens take attention from another's.

        Raises:
            ValueError: ``control`` is replace, and the captions differ in their number of words.
        """
        maps = [reading.token_map(control) for reading in self.readings]
        return TokenMap(
            torch.block_diag(*(each.matrix for each in maps)), torch.cat([each.own for each in maps])
        )

    def changed(self) -> list[int]:
        """The positions of tokens of words that only the target's caption has."""
        return self._positions(changed_positions)

    def source_words(self, phrase: str) -> torch.Tensor:
        """1 at the tokens of a phrase of the source's caption, else 0 [T].

        Raises:
            ValueError: the caption does not contain the phrase.
        """
        return self._marked(lambda source, target: word_positions(source, phrase))

    def target_words(self, phrase: str) -> torch.Tensor:
        """The same for the target's caption."""
        return self._marked(lambda source, target: word_positions(target, phrase))

    def _marked(self, of: Callable[[Prompt, Prompt], list[int]]) -> torch.Tensor:
        marked = torch.zeros(self.length)
        marked[self._positions(of)] = 1
        return marked

    def _positions(self, of: Callable[[Prompt, Prompt], list[int]]) -> list[int]:
        positions: list[int] = []
        first = 0
        for reading in self.readings:
            if reading.prompts is not None:
                positions += [first + position for position in of(*reading.prompts)]
            first += reading.length
        return positions
