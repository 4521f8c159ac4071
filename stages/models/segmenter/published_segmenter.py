"""SAM in segment-anything's implementation, from a folder of ``editpairs convert``."""

from collections.abc import Sequence

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from stages.models.device import default_device
from stages.models.segmenter import SegmenterWeights
from stages.models.segmenter.architecture import Architecture, build
from stages.models.segmenter.segmenter import Segmenter
from stages.models.weights import fill_from_folder, require_files


class PublishedSegmenter(Segmenter):
    """A ``Sam`` of segment-anything."""

    def __init__(self, model: Sam, dtype: str = "float32") -> None:
        self.model, self.threshold = model.eval(), model.mask_threshold
        self.device, self.dtype = model.device, dtype

    @classmethod
    def load(cls, weights: SegmenterWeights) -> "PublishedSegmenter":
        """Load a weights folder.

        Raises:
            FileNotFoundError: the folder lacks a file. The message names the manifest key.
        """
        key = "mask.segmenter.model"
        folder = require_files(weights, key, "config.json", "model.safetensors")
        sam = build(Architecture.model_validate_json((folder / "config.json").read_bytes()))
        fill_from_folder(sam, weights, key)
        return cls(sam.to(default_device()), weights.dtype)

    def _encode(self, images: list[np.ndarray]) -> Sequence[tuple[Tensor, tuple[int, int]]]:
        """Embeddings with the sizes at which they were computed."""
        inputs = [self._resized(image) for image in images]
        embeddings = self.model.image_encoder(torch.stack([self.model.preprocess(x) for x in inputs]))
        return [
            (embedding[None], (resized.shape[-2], resized.shape[-1]))
            for embedding, resized in zip(embeddings, inputs, strict=True)
        ]

    def _decode(
        self, encoded: tuple[Tensor, tuple[int, int]], boxes: np.ndarray, shape: tuple[int, ...]
    ) -> Tensor:
        sam, (embedding, size) = self.model, encoded
        prompts = self._prompts(boxes, size, shape)
        sparse, dense = sam.prompt_encoder(points=None, boxes=prompts, masks=None)
        logits, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return sam.postprocess_masks(logits, size, shape)[:, 0]

    def _resized(self, image: np.ndarray) -> Tensor:
        """uint8 RGB [h,w,3] to float [3,h',w'] in [0,255]; the longer side has the model's size."""
        pixels = (
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(self.model.device).float()
        )
        height, width = image.shape[:2]
        factor = self.model.image_encoder.img_size / max(height, width)
        size = (round(height * factor), round(width * factor))
        if size == (height, width):
            return pixels
        return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
