"""Turning boxes into masks: what both libraries' Segment Anything have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.models.batches import full_batches
from stages.models.device import computing_in


class Segmenter(ABC):
    """A SAM that turns boxes into masks."""

    threshold: float
    """The logit above which a pixel belongs to the mask."""
    device: torch.device
    dtype: str = "float32"
    """The precision in which it computes."""

    @torch.inference_mode()
    def segment(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], batch: int
    ) -> list[np.ndarray | None]:
        """One mask per box (``multimask_output=False``).

        Args:
            images: uint8 RGB [h,w,3].
            boxes: for each picture float [n,4], x0, y0, x1, y1 in pixels. Pictures without boxes are not
                encoded.
            batch: pictures per forward pass of the encoder; a smaller last batch is filled up.

        Returns:
            For each picture bool [n,h,w]; None if the model's output is not finite.
        """
        masks: list[np.ndarray | None] = [np.zeros((0, *image.shape[:2]), bool) for image in images]
        boxed = [i for i, found in enumerate(boxes) if len(found)]
        for rows, filled_rows in full_batches(boxed, batch):
            with computing_in(self.dtype, self.device):
                encoded = self._encode([images[i] for i in filled_rows])
            for i, one in zip(rows, encoded, strict=False):
                with computing_in(self.dtype, self.device):
                    logits = self._decode(one, boxes[i].astype(np.float32), images[i].shape[:2]).float()
                masks[i] = (logits > self.threshold).cpu().numpy() if logits.isfinite().all() else None
        return masks

    @abstractmethod
    def _encode(self, images: list[np.ndarray]) -> Sequence[Any]:
        """Encode pictures in one forward pass: for each what ``_decode`` needs."""

    @abstractmethod
    def _decode(self, encoded: Any, boxes: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        """Decode boxes in an encoded picture of ``shape`` (h, w) to logits [n,h,w]."""

    def _prompts(self, boxes: np.ndarray, size: tuple[int, int], shape: tuple[int, ...]) -> Tensor:
        """Boxes in the pixels of a picture of ``shape``, in those of the ``size`` at which it was encoded."""
        scale = np.array((size[1] / shape[1], size[0] / shape[0]) * 2, np.float32)
        return torch.from_numpy(boxes * scale).to(self.device)
