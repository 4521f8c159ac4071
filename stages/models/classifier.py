"""A sequence classifier of transformers, used as task predictor."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stages.base import Weights
from stages.models.batches import full_batches
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor
from stages.unknown_words import unknown_words


class SequenceClassifier:
    """Classifies instructions. Its labels (``id2label`` in its config) are task names."""

    def __init__(self, weights: Weights, max_tokens: int) -> None:
        key = "task_check.predictor.model"
        self.tokenizer = load_processor(AutoTokenizer, weights, key)
        model = load_model(AutoModelForSequenceClassification, weights, key, dtype=torch.float32)
        self.model = model.to(default_device()).eval().requires_grad_(False)
        self.max_tokens = max_tokens

    @property
    def labels(self) -> list[str]:
        return [self.model.config.id2label[index] for index in range(self.model.config.num_labels)]

    @torch.no_grad()
    def predict(self, instructions: Sequence[str], batch: int) -> list[Mapping[str, float]]:
        """Probabilities by label; empty for a text that the tokenizer cannot read.

        These are texts with a word that it does not know, or with one of its special tokens: a T5, for
        example, accepts only texts with one end token.

        Batches have a fixed shape, so that no row depends on its neighbours.
        """
        probabilities: list[Mapping[str, float]] = []
        for texts, filled_texts in full_batches(instructions, batch):
            reads = [readable(self.tokenizer, text) for text in filled_texts]
            encoded = self.tokenizer(
                [text if whole else "" for text, whole in zip(filled_texts, reads, strict=True)],
                padding="max_length",
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.model.device)
            shares = self.model(encoded.input_ids, attention_mask=encoded.attention_mask).logits.softmax(-1)
            for row, whole in zip(shares.tolist()[: len(texts)], reads, strict=False):
                probabilities.append(dict(zip(self.labels, row, strict=True)) if whole else {})
        return probabilities


def readable(tokenizer: Any, text: str) -> bool:
    """Whether a tokenizer knows all words of a text, and the text holds none of its special tokens."""
    special = any(token in text for token in tokenizer.all_special_tokens)
    return not special and not unknown_words(tokenizer, text)
