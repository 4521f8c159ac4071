"""How the tokens of two captions correspond: the token maps of Prompt-to-Prompt.

Prompt-to-Prompt (Hertz et al. 2022) builds the edit's cross-attention P' from the source's P_s by
a fixed matrix over tokens. With P_t the edit's own attention,

    P' = P_s B + P_t diag(rho),

where ``B`` [T,T] maps source tokens to target tokens and ``rho`` [T] keeps a share of the edit's
own columns. Tokens include the start, the end and the padding: they carry real attention.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

GAP, MATCH, MISMATCH = 0, 1, -1
"""Scores of the global alignment in the published code."""


@dataclass(frozen=True)
class TokenMap:
    """``B`` float [T,T] and ``rho`` float [T] of the equation above."""

    matrix: torch.Tensor
    own: torch.Tensor


@dataclass(frozen=True)
class Prompt:
    """A tokenized prompt: ``ids`` with start and end but no padding; ``words``, the token positions
    of each whitespace-separated word; ``text``, with single spaces."""

    text: str
    ids: list[int]
    words: list[list[int]]


def tokenize(tokenizer: PreTrainedTokenizerFast, text: str) -> Prompt:
    """Tokenize a prompt and find each word's tokens by the tokenizer's offsets."""
    text = " ".join(text.split())
    encoded = tokenizer(text, return_offsets_mapping=True, truncation=True)
    starts = np.cumsum([0] + [len(word) + 1 for word in text.split()])
    words: list[list[int]] = [[] for _ in text.split()]
    for position, (start, end) in enumerate(encoded["offset_mapping"]):
        if end > start:
            words[int(np.searchsorted(starts, start, side="right")) - 1].append(position)
    return Prompt(text, list(encoded["input_ids"]), words)


def token_map(source: Prompt, target: Prompt, length: int) -> TokenMap:
    """The map between two prompts: replace if they have the same number of words, else refine."""
    if len(source.words) == len(target.words):
        return replace_map(source, target, length)
    return refine_map(source.ids, target.ids, length)


def replace_map(source: Prompt, target: Prompt, length: int) -> TokenMap:
    """Word swap: every word takes over the attention of the word in its place.

    Words of equally many tokens are paired token by token; otherwise each of the target's tokens
    takes the mean of the source's. (The published mapper divides by the target's count instead,
    and is misaligned after such a word: docs/prompt-to-prompt.md, section 3.)

    Raises:
        ValueError: the prompts differ in their number of words.
    """
    if len(source.words) != len(target.words):
        raise ValueError(
            f"replace needs prompts of equally many words: {source.text!r} has {len(source.words)}, "
            f"{target.text!r} has {len(target.words)}"
        )
    matrix = torch.zeros(length, length)
    matrix[0, 0] = 1
    for old, new in zip(source.words, target.words, strict=True):
        if len(old) == len(new):
            matrix[old, new] = 1
        else:
            matrix[np.ix_(old, new)] = 1 / len(old)
    first_free = len(target.ids) - 1
    shift = len(source.ids) - len(target.ids)
    for position in range(first_free, length):
        matrix[min(position + shift, length - 1), position] = 1
    return TokenMap(matrix, torch.zeros(length))


def published_replace_map(source: Prompt, target: Prompt, length: int) -> TokenMap:
    """The published word-swap mapper, mistakes included; for comparison with published results.

    After a word whose number of tokens changes it pairs position j with j instead of moving along,
    and it divides by the target's number of tokens (docs/prompt-to-prompt.md, section 3).
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
    """A map whose target tokens' attention is multiplied by ``weights`` [T], around any other map.

    As published it is not normalised again, and weights may be negative.
    """
    return TokenMap(tokens.matrix * weights, tokens.own * weights)


def word_positions(prompt: Prompt, phrase: str) -> list[int]:
    """The token positions of a phrase's words where they stand together in a prompt.

    Raises:
        ValueError: they do not (the published code ignores such a word silently).
    """
    words, wanted = prompt.text.casefold().split(), phrase.casefold().split()
    for start in range(len(words) - len(wanted) + 1):
        if wanted and words[start : start + len(wanted)] == wanted:
            return [token for word in prompt.words[start : start + len(wanted)] for token in word]
    raise ValueError(f"the words {phrase!r} do not stand in the caption {prompt.text!r}")


def changed_positions(source: Prompt, target: Prompt) -> list[int]:
    """The token positions of the target's words that the source's caption does not share."""
    if len(source.words) == len(target.words):
        pairs = zip(source.text.split(), target.text.split(), target.words, strict=True)
        return [token for before, after, word in pairs if before != after for token in word]
    return [
        position
        for position, aligned in enumerate(_align(tuple(source.ids), tuple(target.ids)))
        if aligned < 0
    ]


def refine_map(source_ids: list[int], target_ids: list[int], length: int) -> TokenMap:
    """Refinement: tokens that both prompts share keep the source's attention, new ones their own.

    The shared tokens are those of a global alignment (Needleman and Wunsch 1970) of the token ids.
    """
    matrix, own = torch.zeros(length, length), torch.zeros(length)
    for position, source in enumerate(_align(tuple(source_ids), tuple(target_ids))):
        if source >= 0:
            matrix[source, position] = 1
        else:
            own[position] = 1
    padding = range(len(target_ids), length)
    matrix[padding, padding] = 1
    return TokenMap(matrix, own)


@lru_cache(maxsize=64)
def _align(source: tuple[int, ...], target: tuple[int, ...]) -> list[int]:
    """For each target token the source token it is aligned to, or -1. Ties go as published:
    a new target token before a dropped source token before a pair."""
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
            step[i, j] = max(options, key=lambda option: options[option])
            score[i, j] = options[step[i, j]]
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
