"""SAM and SAM 2 in transformers' implementation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, Sam2Model, SamModel

from stages.models.device import default_device
from stages.models.segmenter import SegmenterWeights
from stages.models.segmenter.segmenter import Segmenter
from stages.models.weights import load_model, load_processor

_CLASSES: dict[str, Any] = {"sam": SamModel, "sam2": Sam2Model, "sam2_video": Sam2Model}
"""By the config's ``model_type``; SAM 2's published weights are those of its video model."""


class TransformersSegmenter(Segmenter):
    """A ``SamModel`` or ``Sam2Model`` with its image processor."""

    threshold = 0.0

    def __init__(self, model: SamModel | Sam2Model, processor: Any, dtype: str = "float32") -> None:
        self.model, self.processor = model.eval(), processor
        self.device, self.dtype = model.device, dtype
        self.whole = isinstance(model, Sam2Model)
        """Whether pictures are stretched to the model's square; SAM keeps their shape and pads them."""

    @classmethod
    def load(cls, weights: SegmenterWeights) -> "TransformersSegmenter":
        """Load a hub model or a folder written by ``save_pretrained``.

        Raises:
            OSError: there is no such model.
            ValueError: it is neither a SAM nor a SAM 2.
        """
        key = "mask.segmenter.model"
        kind = load_processor(AutoConfig, weights, key).model_type
        if kind not in _CLASSES:
            raise ValueError(f"{key}: {weights.model} is a {kind}; the kinds are {', '.join(_CLASSES)}")
        model = load_model(_CLASSES[kind], weights, key)
        processor = load_processor(AutoImageProcessor, weights, key)
        return cls(model.to(default_device()), processor, weights.dtype)

    def _encode(self, images: list[np.ndarray]) -> Sequence[tuple[Any, tuple[int, int]]]:
        """Embeddings with the sizes at which they were computed."""
        inputs = self.processor(images=images, return_tensors="pt", device=self.model.device)
        embedded = self.model.get_image_embeddings(inputs["pixel_values"].to(self.model.device))
        if self.whole:
            height, width = inputs["pixel_values"].shape[-2:]
            levels = [[level[i : i + 1] for level in embedded] for i in range(len(images))]
            return [(level, (height, width)) for level in levels]
        sizes = inputs["reshaped_input_sizes"].tolist()
        return [(embedded[i : i + 1], (sizes[i][0], sizes[i][1])) for i in range(len(images))]

    def _decode(
        self, encoded: tuple[Any, tuple[int, int]], boxes: np.ndarray, shape: tuple[int, ...]
    ) -> Tensor:
        embedding, size = encoded
        prompts = self._prompts(boxes, size, shape)
        output = self.model(image_embeddings=embedding, input_boxes=prompts[None], multimask_output=False)
        sizes = [[list(shape)]] if self.whole else [[list(shape)], [list(size)]]
        [logits] = self.processor.post_process_masks([output.pred_masks[0]], *sizes, binarize=False)
        return logits[:, 0]
