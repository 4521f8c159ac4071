"""CLIP, loaded by open_clip: embeddings of pictures and texts, and similarities between them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from stages.base import Weights
from stages.models.batches import full_batches
from stages.models.device import computing_in
from stages.models.weights import load_clip
from stages.unknown_words import unknown_words


class Clip:
    """A CLIP model with its own preprocessing and tokenizer."""

    def __init__(self, model: torch.nn.Module, tokenizer: Any, dtype: str = "float32") -> None:
        self.model, self.tokenizer, self.dtype = model.eval(), tokenizer, dtype
        self.device = next(model.parameters()).device
        preprocessing = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
        self.preprocess = image_transform_v2(preprocessing, is_train=False)
        self.side = preprocessing.size if isinstance(preprocessing.size, int) else min(preprocessing.size)
        """Side in pixels of the square that the model sees."""

    @classmethod
    def load(cls, weights: Weights, key: str = "clip.model", dtype: str = "float32") -> "Clip":
        """Load a model, by default the manifest's; raises the errors of ``load_clip``.

        Args:
            weights: the model.
            key: its manifest key, for errors.
            dtype: the precision in which it computes.
        """
        return cls(*load_clip(weights, key), dtype)

    def knows(self, text: str) -> bool:
        """Whether the tokenizer has a token for every word.

        Byte-level tokenizers, such as CLIP's, always do.
        """
        tokenizer = getattr(self.tokenizer, "tokenizer", None)
        return tokenizer is None or not unknown_words(tokenizer, text)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self.encode_texts([""], 1).shape[1])

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray], batch: int) -> np.ndarray:
        """Normalised embeddings, float32 [n,d], of uint8 RGB pictures [h,w,3]."""
        inputs = [self.preprocess(Image.fromarray(image)) for image in images]
        return self._encode(self.model.encode_image, inputs, batch)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch: int) -> np.ndarray:
        """Normalised embeddings, float32 [n,d]. A text is cut at the model's context length."""
        return self._encode(self.model.encode_text, list(self.tokenizer(list(texts))), batch)

    def _encode(
        self, encode: Callable[..., torch.Tensor], inputs: list[torch.Tensor], batch: int
    ) -> np.ndarray:
        """Encode ``batch`` inputs per forward pass. The last batch is filled up, so all have one shape."""
        parts = []
        for part, filled_part in full_batches(inputs, batch):
            with computing_in(self.dtype, self.device):
                features = encode(torch.stack(filled_part).to(self.device), normalize=True)
            parts.append(features[: len(part)].float().cpu().numpy())
        return np.concatenate(parts)


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two vectors, in [-1,1]; NaN if one of them is zero or not finite."""
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / norm) if norm != 0 else math.nan


def direction(
    input_image: np.ndarray, target_image: np.ndarray, input_text: np.ndarray, output_text: np.ndarray
) -> float:
    """CLIP directional similarity: the cosine of picture difference and caption difference.

    Embeddings are normalised [d], as in InstructPix2Pix (Brooks et al. 2023). 0 if nothing changed.
    """
    change, wanted = target_image - input_image, output_text - input_text
    return similarity(change, wanted) if change.any() and wanted.any() else 0.0
