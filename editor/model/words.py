"""Tokens for words that a tokenizer splits, for text encoders that are trained along."""

from collections.abc import Iterable

import torch
from tokenizers import AddedToken

from editor.model.network import EditorNetwork


def add_words(network: EditorNetwork, texts: Iterable[str]) -> list[str]:
    """Give a token of its own to each word of ``texts`` that a tokenizer of the editor splits.

    A new token's embedding is random, with the deviation of the others. It is drawn with torch's global
    generator.

    Returns:
        The new words, sorted.
    """
    words = sorted({word for text in texts for word in text.lower().split() if word.isalpha()})
    new: set[str] = set()
    for suffix in ("", "_2"):
        tokenizer = getattr(network.pipeline, f"tokenizer{suffix}", None)
        encoder = getattr(network.pipeline, f"text_encoder{suffix}", None)
        if tokenizer is None or encoder is None:
            continue
        split = [word for word in words if len(tokenizer(word, add_special_tokens=False).input_ids) > 1]
        if not split:
            continue
        before = len(tokenizer)
        tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in split])
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table = encoder.get_input_embeddings().weight
        with torch.no_grad():
            table[before:] = torch.randn_like(table[before:]) * table[:before].std()
        encoder.requires_grad_(False)
        new |= set(split)
    return sorted(new)
