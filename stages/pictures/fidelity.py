"""Measures of change between two pictures, inside and outside the edited region."""

import cv2
import numpy as np
import piq
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.ops import box_iou

EDGE_SIDE = 64
"""Shorter side in pixels at which edges are compared, so that a bound holds at any resolution."""
WEAK_EDGES = 3e-5
"""The metric's constant.

The paper's 170 / 255**2 is meant for barely visible distortions; with it, a mountain in haze counts as
flat."""


def as_float(image: np.ndarray) -> np.ndarray:
    """uint8 [h,w,3] to float32 in [0,1]."""
    return image.astype(np.float32) / 255


def mean_change(first: np.ndarray, second: np.ndarray, region: np.ndarray | None) -> float | None:
    """Mean absolute difference over the RGB values of a region, in [0,1].

    Args:
        first, second: float [h,w,3] in [0,1].
        region: bool [h,w]; None or empty if there is no region.

    Returns:
        None without a region.

    Raises:
        TypeError: a picture has integer values, whose difference would wrap around.
    """
    _check(first, second)
    if region is None or not region.any():
        return None
    return float(np.abs(first - second)[region].mean(dtype=np.float64))


def clipped(image: np.ndarray) -> float:
    """Share of pixels that are pure black or pure white, for a picture float [h,w,3] in [0,1]."""
    _check(image)
    return float(((image <= 0).all(-1) | (image >= 1).all(-1)).mean())


def contrast(image: np.ndarray) -> float:
    """Standard deviation of the grey values of a picture (float [h,w,3] in [0,1]); at most 0.5."""
    _check(image)
    return float(image.mean(-1, dtype=np.float64).std())


def roughness(image: np.ndarray) -> float:
    """Mean difference of neighbouring grey values over their standard deviation (float [h,w,3] in [0,1]).

    Noise has 1.1 at any strength, a picture of objects far less. A flat picture has 0.
    """
    _check(image)
    grey = image.mean(-1, dtype=np.float64)
    deviation = float(grey.std())
    steps = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)]
    return float(np.mean(steps)) / deviation if deviation else 0.0


def mask_fit(boxes: np.ndarray, precise: np.ndarray) -> float:
    """Whether detector and segmenter found the same object: the IoU in [0,1] of the boxes around each result.

    Args:
        boxes: float [n,4] (x0, y0, x1, y1 in pixels), n >= 1.
        precise: float [h,w] in [0,1]; 0.5 and above is the object. The result is 0 for an empty mask.
    """
    ys, xs = np.nonzero(precise >= 0.5)
    if not len(xs):
        return 0.0
    framed = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    grounded = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    return float(box_iou(*(torch.from_numpy(box[None].astype(np.float64)) for box in (framed, grounded))))


def gmsd(first: np.ndarray, second: np.ndarray) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014, by piq); 0 if all edges stay in place.

    It measures how unevenly the edges agree over the picture. A darker night changes all edges alike; a
    second moon or a moved mountain changes one place. Pictures are compared at a shorter side of
    ``EDGE_SIDE``. Arguments and errors as in :func:`mean_change`.
    """
    _check(first, second)
    side = EDGE_SIDE / min(first.shape[:2])
    size = tuple(round(length * side) for length in first.shape[1::-1])
    pair = [_as_batch(cv2.resize(image, size, interpolation=cv2.INTER_AREA)) for image in (first, second)]
    return float(piq.gmsd(*pair, t=WEAK_EDGES))


def ssim(first: np.ndarray, second: np.ndarray, region: np.ndarray | None) -> float | None:
    """Structural similarity (Wang et al. 2004, Gaussian window of sigma 1.5), averaged over a region.

    Arguments and errors as in :func:`mean_change`. At most 1, which equal pictures reach.
    """
    _check(first, second)
    if region is None or not region.any():
        return None
    _, full = structural_similarity_index_measure(
        _as_batch(second), _as_batch(first), data_range=1.0, return_full_image=True
    )
    return float(full[0].numpy()[:, region].mean(dtype=np.float64))


def _as_batch(image: np.ndarray) -> torch.Tensor:
    """[h,w,3] to [1,3,h,w]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _check(*images: np.ndarray) -> None:
    for image in images:
        if not np.issubdtype(image.dtype, np.floating):
            raise TypeError(f"metrics take pictures as floats in [0,1], not {image.dtype}")
