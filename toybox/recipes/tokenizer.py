"""The tokenizer of the toybox's text encoders: a CLIPTokenizer with one token per word of the world.

It is a byte-level BPE like CLIP's own, so any other text falls back to letters and bytes.
"""

from collections import Counter
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from toybox.world.scene import vocabulary

CONTEXT_LENGTH = 32
"""Tokens in a caption, including start and end token."""

_END_OF_WORD = "</w>"


def build_tokenizer() -> CLIPTokenizer:
    """Build the tokenizer; the result is always the same.

    CLIP pools at the end token, so it has the highest id.
    """
    words = vocabulary()
    byte_symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*byte_symbols, *(symbol + _END_OF_WORD for symbol in byte_symbols)]
    learned = _learn_merges(words)
    pieces = ["".join(pair) for pair in learned]
    tokens = list(dict.fromkeys([*symbols, *pieces, "<|startoftext|>", "<|endoftext|>"]))
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=learned,  # type: ignore[arg-type]
        model_max_length=CONTEXT_LENGTH,
    )
    split = [word for word in words if len(tokenizer(word).input_ids) != 3]
    if split:
        raise ValueError(f"the tokenizer splits the words {split}")
    return tokenizer


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that turn every word into one token. The most frequent pair comes first, ties by name.

    tokenizers' own trainer breaks ties by hash, so its ids differ between processes.
    """
    spelled = [[*word[:-1], word[-1] + _END_OF_WORD] for word in words]
    merges = []
    while pairs := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merge(pieces, best) for pieces in spelled]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
