"""Targets of the vision tasks: what was grounded, drawn on the picture."""

from collections.abc import Callable

import cv2
import numpy as np

COLOR = np.array([255, 0, 200], np.uint8)
"""A magenta that photographs rarely hold, so the annotation is not taken for a part of them."""
OPACITY = 0.6

Annotation = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def draw_boxes(image: np.ndarray, boxes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Outline the boxes [n,4] (x0, y0, x1, y1 in pixels) on a picture uint8 [H,W,3]."""
    drawn = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 64))
    right, bottom = image.shape[1] - 1, image.shape[0] - 1
    for x0, y0, x1, y1 in np.round(boxes).astype(int):
        first = (max(0, int(x0)), max(0, int(y0)))
        last = (min(right, int(x1) - 1), min(bottom, int(y1) - 1))
        cv2.rectangle(drawn, first, last, COLOR.tolist(), thickness)
    return drawn


def draw_mask(image: np.ndarray, boxes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Tint the pixels of a mask [H,W] in [0,1] on a picture uint8 [H,W,3]."""
    alpha = OPACITY * mask[..., None]
    return np.round(image * (1 - alpha) + COLOR * alpha).astype(np.uint8)


ANNOTATIONS: dict[str, Annotation] = {"draw_box": draw_boxes, "draw_mask": draw_mask}
"""The annotation by a task's ``method``."""
