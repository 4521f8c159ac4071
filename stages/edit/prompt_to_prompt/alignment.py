"""Token maps of Prompt-to-Prompt: which tokens of two captions correspond.

See docs/prompt-to-prompt.md, section 3.

Prompt-to-Prompt (Hertz et al. 2022) computes the edit's cross-attention P' from the source's attention P_s
and the edit's own attention P_t, both [pixels,T]:

    P' = P_s B + P_t diag(rho)

``B`` [T,T]: entry (m, n) is the share of source token m's attention that target token n takes. ``rho`` [T]:
the share of its own attention that target token n keeps. The T tokens include start, end and padding, because
these carry real attention.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from stages.words import without_article, words_of

GAP, MATCH, MISMATCH = 0, 1, -1
"""Scores of the global alignment, as in the published code."""


@dataclass(frozen=True)
class TokenMap:
    """``matrix`` is B, float [T,T], and ``own`` is rho, float [T], in the equation above."""

    matrix: torch.Tensor
    own: torch.Tensor


@dataclass(frozen=True)
class Prompt:
    """A tokenized prompt.

    Attributes:
        text: the prompt with single spaces.
        ids: token ids with start and end token, without padding.
        words: for each word (separated by spaces) the positions of its tokens.
    """

    text: str
    ids: list[int]
    words: list[list[int]]

    @property
    def before(self) -> int:
        """Number of tokens before the words: CLIP has a start token, T5 has none."""
        return min((min(word) for word in self.words if word), default=len(self.ids) - 1)

    @property
    def after(self) -> int:
        """The position after the words' tokens, at which the end tokens begin."""
        return max((max(word) + 1 for word in self.words if word), default=len(self.ids) - 1)


def tokenize(tokenizer: PreTrainedTokenizerFast, text: str) -> Prompt:
    """Tokenize a prompt and find each word's tokens by the tokenizer's offsets.

    The published code counts characters of decoded tokens instead, which fails for double spaces and for
    characters that are split into bytes.
    """
    text = " ".join(text.split())
    encoded = tokenizer(text, return_offsets_mapping=True, truncation=True)
    # Where each word begins, in characters.
    starts = np.cumsum([0] + [len(word) + 1 for word in text.split()])
    words: list[list[int]] = [[] for _ in text.split()]
    for position, (start, end) in enumerate(encoded["offset_mapping"]):
        # Tokens of SentencePiece and byte-level BPE begin with the space before their word, and a token can
        # be that space alone. Start and end token have empty offsets.
        first = end - len(text[start:end].lstrip())
        if end > start and first < len(text):
            words[int(np.searchsorted(starts, first, side="right")) - 1].append(position)
    return Prompt(text, list(encoded["input_ids"]), words)


def token_map(source: Prompt, target: Prompt, length: int) -> TokenMap:
    """The map between two prompts: replace if they have equally many words, else refine."""
    if len(source.words) == len(target.words):
        return replace_map(source, target, length)
    return refine_map(source.ids, target.ids, length)


def replace_map(source: Prompt, target: Prompt, length: int) -> TokenMap:
    """Word swap: each target word takes the attention of the source word in its place.

    Two words with equally many tokens are paired token by token. Otherwise each token of the target word
    takes the mean over the source word's tokens. (The published mapper divides by the target's count instead,
    and is misaligned after such a word: docs/prompt-to-prompt.md, section 3.) A target word keeps its own
    attention if the source's has no tokens, because the text encoder did not read so far.

    Raises:
        ValueError: the prompts differ in their number of words.
    """
    if len(source.words) != len(target.words):
        raise ValueError(
            f"replace needs prompts of equally many words: {source.text!r} has {len(source.words)}, "
            f"{target.text!r} has {len(target.words)}"
        )
    matrix, own = torch.zeros(length, length), torch.zeros(length)
    common = range(min(source.before, target.before))  # start tokens
    matrix[common, common] = 1
    for old, new in zip(source.words, target.words, strict=True):
        if len(old) == len(new):
            matrix[old, new] = 1
        elif old:
            matrix[np.ix_(old, new)] = 1 / len(old)
        else:
            own[new] = 1
    # End tokens and padding: the target's token at a position takes the source's token at the same distance
    # from the last word. If the target is longer, its last padding takes the source's last token.
    shift = source.after - target.after
    for position in range(target.after, length):
        matrix[min(position + shift, length - 1), position] = 1
    return TokenMap(matrix, own)


def published_replace_map(source: Prompt, target: Prompt, length: int) -> TokenMap:
    """The published word-swap mapper with its mistakes, for comparison with published results.

    After a word whose number of tokens changes, it maps position j to j without shifting, and it divides by
    the target's number of tokens (docs/prompt-to-prompt.md, section 3).
    """
    matrix = torch.zeros(length, length)
    i = j = 0
    changed = [
        (old, new)
        for old, new, before, after in zip(
            source.words, target.words, source.text.split(), target.text.split(), strict=True
        )
        if before != after
    ]
    while i < length and j < length:
        if changed and changed[0][0][0] == i:
            old, new = changed.pop(0)
            if len(old) == len(new):
                matrix[old, new] = 1
            else:
                matrix[np.ix_(old, new)] = 1 / len(new)
            i, j = i + len(old), j + len(new)
        elif changed:
            matrix[i, j] = 1
            i, j = i + 1, j + 1
        else:
            matrix[j, j] = 1
            i, j = i + 1, j + 1
    return TokenMap(matrix, torch.zeros(length))


def reweighted(tokens: TokenMap, weights: torch.Tensor) -> TokenMap:
    """Multiply the attention of each target token by ``weights`` [T], on top of another map.

    As published, the result is not normalised again, and weights can be negative.
    """
    return TokenMap(tokens.matrix * weights, tokens.own * weights)


def word_positions(prompt: Prompt, phrase: str) -> list[int]:
    """The token positions of a phrase in a prompt.

    Words are compared by ``stages.words``, without the phrase's leading article. The tokens of a word include
    the punctuation attached to it.

    Raises:
        ValueError: the prompt does not contain the phrase. (The published code silently ignores such a word.)
    """
    wanted = without_article(words_of(phrase))
    words = [(word, place) for place, text in enumerate(prompt.text.split()) for word in words_of(text)]
    for start in range(len(words) - len(wanted) + 1):
        found = words[start : start + len(wanted)]
        if wanted and [word for word, _ in found] == wanted:
            return [token for place in dict.fromkeys(p for _, p in found) for token in prompt.words[place]]
    raise ValueError(f"the words {phrase!r} are not in the caption {prompt.text!r}")


def changed_positions(source: Prompt, target: Prompt) -> list[int]:
    """The token positions of words that only the target's caption has."""
    if len(source.words) == len(target.words):
        pairs = zip(source.text.split(), target.text.split(), target.words, strict=True)
        return [token for old, new, word in pairs if words_of(old) != words_of(new) for token in word]
    return [
        position
        for position, aligned in enumerate(_align(tuple(source.ids), tuple(target.ids)))
        if aligned < 0
    ]


def refine_map(source_ids: list[int], target_ids: list[int], length: int) -> TokenMap:
    """Refinement: tokens shared by both prompts take the source's attention, new tokens keep their own.

    A global alignment of the token ids finds the shared tokens (Needleman and Wunsch 1970).
    """
    matrix, own = torch.zeros(length, length), torch.zeros(length)
    for position, source in enumerate(_align(tuple(source_ids), tuple(target_ids))):
        if source >= 0:
            matrix[source, position] = 1
        else:
            own[position] = 1
    padding = range(len(target_ids), length)  # padding takes the source's attention at the same position
    matrix[padding, padding] = 1
    return TokenMap(matrix, own)


@lru_cache(maxsize=64)
def _align(source: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    """For each target token, the position of its aligned source token, or -1.

    ``score[i, j]`` is the best score for the first i source and j target tokens; ``step[i, j]`` is the last
    step that reaches it. Ties are broken as published: first a new target token, then a dropped source token,
    then a pair.
    """
    rows, columns = len(source) + 1, len(target) + 1
    score = np.zeros((rows, columns))
    step = np.zeros((rows, columns), int)
    new, dropped, pair = 1, 2, 3
    score[0] = GAP * np.arange(columns)
    score[:, 0] = GAP * np.arange(rows)
    step[0, 1:], step[1:, 0] = new, dropped
    for i in range(1, rows):
        for j in range(1, columns):
            matched = MATCH if source[i - 1] == target[j - 1] else MISMATCH
            options = {
                new: score[i, j - 1] + GAP,
                dropped: score[i - 1, j] + GAP,
                pair: score[i - 1, j - 1] + matched,
            }
            step[i, j] = max(options, key=lambda option: options[option])  # the first of equal options
            score[i, j] = options[step[i, j]]
    # Walk the steps back from the end to read the alignment.
    aligned = [-1] * len(target)
    i, j = len(source), len(target)
    while j > 0:
        if step[i, j] == pair:
            i, j = i - 1, j - 1
            aligned[j] = i
        elif step[i, j] == new:
            j -= 1
        else:
            i -= 1
    return aligned
