"""Per-pixel thresholding between the turns of a session (Sheynin et al. 2023, Emu Edit, section 4.4)."""

import cv2
import numpy as np

ALPHA = 0.03
"""Emu Edit's value."""
KERNEL = 0.08
"""Side of the averaged neighbourhood, as a fraction of the picture's shorter side (5 pixels of 64). Emu Edit
gives none."""


def keep_unchanged(
    before: np.ndarray, after: np.ndarray, alpha: float = ALPHA, kernel: int = 5
) -> np.ndarray:
    """``after``, with the pixels of ``before`` wherever the two hardly differ.

    Unedited pixels are carried over exactly, so they cannot drift from turn to turn. The difference d of a
    pixel is the sum over RGB of |after - before|, averaged over a neighbourhood. The old pixel is kept where
    d < alpha.

    Args:
        before, after: pictures [H,W,3] in [0,1].
        alpha: threshold on d, which is at most 3.
        kernel: side of the averaged neighbourhood in pixels, odd; 1 for no averaging.

    Raises:
        ValueError: ``kernel`` is not odd, or the pictures differ in size.
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, not {kernel}")
    if before.shape != after.shape:
        raise ValueError(f"the pictures differ in size: {before.shape} and {after.shape}")
    difference = np.abs(after.astype(np.float64) - before).sum(-1)
    smooth = cv2.blur(difference, (kernel, kernel), borderType=cv2.BORDER_REFLECT)
    return np.where((smooth < alpha)[..., None], before, after)


def kernel_of(fraction: float, shape: tuple[int, ...]) -> int:
    """The side of a neighbourhood in pixels, odd: a fraction of the shorter side of a picture [H,W,...]."""
    return 2 * max(0, round((fraction * min(shape[:2]) - 1) / 2)) + 1
