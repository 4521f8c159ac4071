"""GroundingDINO in groundingdino-py's implementation, from a folder of ``editpairs convert``."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from groundingdino.util.misc import NestedTensor, nested_tensor_from_tensor_list
from torch import Tensor
from torch.nn import functional as F

from stages.models.device import default_device
from stages.models.grounding import GroundingConfig
from stages.models.grounding.architecture import (
    TEXT_ENCODER,
    Architecture,
    ImageInput,
    build,
    groundingdino,
)
from stages.models.grounding.detector import Detector, scores_of
from stages.models.grounding.words import caption_of, words_of
from stages.models.weights import fill_from_folder, require_files


class PublishedDetector(Detector):
    """A ``GroundingDINO`` of groundingdino-py."""

    def __init__(
        self, model: "groundingdino.GroundingDINO", image: ImageInput, config: GroundingConfig
    ) -> None:
        self.model, self.image, self.config = model.eval(), image, config
        self.device = next(model.parameters()).device

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer.tokenizer

    @classmethod
    def load(cls, config: GroundingConfig) -> "PublishedDetector":
        """Load a weights folder, described in ``stages.models.grounding.architecture``."""
        folder = require_files(config, "grounding.model", "config.json", "model.safetensors", TEXT_ENCODER)
        architecture = Architecture.model_validate_json((folder / "config.json").read_bytes())
        model = build(architecture, folder / TEXT_ENCODER)
        fill_from_folder(model, config, "grounding.model")
        return cls(model.to(default_device()), architecture.image, config)

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], phrases: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        captions = [caption_of(phrase) for phrase in phrases]
        pictures = preprocess(images, self.image, self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = self.model(pictures, captions=captions)
        tokens = self.model.tokenizer(captions)["input_ids"].to(self.device)
        words = words_of(self.tokenizer, captions, tokens)
        return output["pred_boxes"], scores_of(output["pred_logits"], words), words


def preprocess(images: Sequence[np.ndarray], config: ImageInput, device: torch.device) -> NestedTensor:
    """Resize, normalise and pad uint8 RGB pictures [h,w,3] to one batch of tensors [3,h',w']."""
    return nested_tensor_from_tensor_list([_normalised(image, config, device) for image in images])


def _normalised(image: np.ndarray, config: ImageInput, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device).float() / 255
    height, width = image.shape[:2]
    factor = min(config.shortest_side / min(height, width), config.longest_side / max(height, width))
    size = (round(height * factor), round(width * factor))
    if size != (height, width):
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (config.mean, config.std))
    return (pixels - mean) / std
