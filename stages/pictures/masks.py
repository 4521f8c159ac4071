"""Making masks: pure functions on float arrays [h,w] in [0,1] that fill, clean, smooth and blend."""

import math

import cv2
import numpy as np


def fill_boxes(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Boxes [n,4] (x0, y0, x1, y1 in pixels) as a mask: 1 on every pixel that a box touches."""
    mask = np.zeros(shape, np.float32)
    for x0, y0, x1, y1 in np.asarray(boxes, np.float64).reshape(-1, 4):
        rows = slice(max(0, math.floor(y0)), max(0, math.ceil(y1)))
        mask[rows, max(0, math.floor(x0)) : max(0, math.ceil(x1))] = 1
    return mask


def share_within(box: np.ndarray, region: np.ndarray) -> float:
    """The share of a box's pixels (x0, y0, x1, y1) inside a region, bool [h,w]; 0 for an empty box."""
    covered = fill_boxes(box[None], region.shape) > 0
    return float(region[covered].mean()) if covered.any() else 0.0


def without_specks(mask: np.ndarray, share: float) -> np.ndarray:
    """A mask bool [h,w] with small holes filled and small islands removed, as SAM's mask generator does.

    Args:
        share: least area of a hole or island that stays, as a share of the mask's area.
    """
    from segment_anything.utils.amg import remove_small_regions  # imports torch

    least = share * float(mask.sum())
    filled, _ = remove_small_regions(mask, least, mode="holes")
    whole, _ = remove_small_regions(filled, least, mode="islands")
    return whole


def smooth_mask(precise: np.ndarray, dilate: float, blur: float) -> np.ndarray:
    """The precise mask, dilated and then blurred; 1 on the whole object.

    The dilated mask is blurred, not the precise one. The blur kernel is cut off at the dilation's radius over
    the square root of two, so it never reaches from beyond the dilation to the object.

    Args:
        precise: float [h,w] in [0,1].
        dilate: radius of the elliptic kernel, as a fraction of the shorter side; at least twice the blur's
            sigma is used.
        blur: sigma of the Gaussian, as a fraction of the shorter side.
    """
    side = min(precise.shape)
    sigma = blur * side
    radius = math.ceil(max(dilate * side, 2 * sigma))
    grown = cv2.dilate(precise, disc(radius))
    reach = int(radius / math.sqrt(2))
    if sigma == 0 or reach == 0:
        return grown
    return np.clip(cv2.GaussianBlur(grown, (2 * reach + 1, 2 * reach + 1), sigma), 0, 1)


def soft_mask(
    precise: np.ndarray, smooth: np.ndarray, box: np.ndarray, weights: tuple[float, float, float]
) -> np.ndarray:
    """``w_p * precise + w_s * smooth + w_b * box``, with weights >= 0 that sum to 1."""
    w_p, w_s, w_b = (np.float32(w) for w in weights)
    return np.clip(w_p * precise + w_s * smooth + w_b * box, 0, 1).astype(np.float32)


def disc(radius: int) -> np.ndarray:
    """An elliptic structuring element, uint8 [2 * radius + 1, 2 * radius + 1]."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
