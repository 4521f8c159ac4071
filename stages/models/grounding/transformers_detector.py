"""GroundingDINO in transformers' implementation: ``grounding.library: transformers``."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor, GroundingDinoForObjectDetection, PreTrainedTokenizerBase

from stages.models.device import default_device
from stages.models.grounding import GroundingConfig
from stages.models.grounding.detector import Detector, scores_of
from stages.models.grounding.words import caption_of, words_of
from stages.models.weights import load_model, load_processor

TEXT_LENGTH = 64
"""Tokens per phrase after padding: one shape for all batches, as with the other library."""


class TransformersDetector(Detector):
    """``GroundingDinoForObjectDetection`` with its processor."""

    def __init__(
        self, model: GroundingDinoForObjectDetection, processor: AutoProcessor, config: GroundingConfig
    ) -> None:
        self.model, self.processor, self.config = model.eval(), processor, config
        self.device = model.device

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processor.tokenizer

    @classmethod
    def load(cls, config: GroundingConfig) -> "TransformersDetector":
        """Load a hub model or a folder written by ``save_pretrained``.

        Raises:
            OSError: there is no such model.
        """
        model = load_model(GroundingDinoForObjectDetection, config, "grounding.model")
        processor = load_processor(AutoProcessor, config, "grounding.model")
        return cls(model.to(default_device()), processor, config)

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], phrases: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        captions = [caption_of(phrase) for phrase in phrases]
        inputs = self.processor(
            images=list(images),
            text=captions,
            padding="max_length",
            truncation=True,
            max_length=TEXT_LENGTH,
            return_tensors="pt",
        ).to(self.device)
        output = self.model(**inputs)
        words = words_of(self.tokenizer, captions, inputs["input_ids"])
        return output.pred_boxes, scores_of(output.logits, words), words
