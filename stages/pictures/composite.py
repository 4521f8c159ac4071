"""Compositing: even with equal latents, the decoder changes pixels outside the mask, so they are restored."""

import cv2
import numpy as np

FEATHER = 1 / 32
"""Width of the seam as a fraction of the picture's shorter side."""


def paste_outside(anchor: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The target where the mask M allows edits, the anchor elsewhere.

    The seam is a feathered edge around the *support* of M. Blending with M itself would show both pictures at
    once where M is between 0 and 1.

    Args:
        anchor, target: uint8 [H,W,3].
        mask: M, float [H,W] in [0,1].
    """
    radius = max(1, round(FEATHER * min(mask.shape)))
    support = (mask > 0).astype(np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    seam = cv2.GaussianBlur(cv2.dilate(support, disc), (2 * radius + 1, 2 * radius + 1), 0)
    alpha = np.maximum(support, seam)[..., None]
    return np.round(anchor + alpha * (target.astype(np.float32) - anchor)).astype(np.uint8)
