"""DINOv2: picture embeddings that follow structure more than words (Oquab et al. 2023)."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel

from stages.base import Weights
from stages.models.device import default_device
from stages.models.weights import load_model, load_processor


class Dino:
    """A DINOv2 model of transformers with its own preprocessing. The embedding is the class token."""

    def __init__(self, weights: Weights, key: str) -> None:
        self.device = default_device()
        self.processor = load_processor(AutoImageProcessor, weights, key)
        self.model = load_model(AutoModel, weights, key).to(self.device).eval()

    @property
    def side(self) -> int:
        """Side in pixels of the square that the model sees."""
        cut = getattr(self.processor, "do_center_crop", False)
        size = self.processor.crop_size if cut else self.processor.size
        return int(size["height"] if "height" in size else size["shortest_edge"])

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray], batch: int) -> np.ndarray:
        """Normalised embeddings, float32 [n,d], of uint8 RGB pictures [h,w,3] of equal size."""
        parts = []
        for start in range(0, len(images), batch):
            inputs = self.processor(images=list(images[start : start + batch]), return_tensors="pt")
            features = self.model(**inputs.to(self.device)).last_hidden_state[:, 0].float()
            parts.append(torch.nn.functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(parts)
