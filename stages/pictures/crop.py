"""Cutting a picture to the place of an edit."""

import math

import numpy as np

from stages.pictures.masks import fill_boxes
from stages.pictures.region import Region


def square_around(region: Region, margin: float) -> tuple[slice, slice] | None:
    """The square around a region's boxes and precise mask, as slices of rows and columns.

    It lies inside the picture; of an edit longer than the picture's shorter side it shows the middle.

    Args:
        region: the region.
        margin: added on each side, as a fraction of the longer side of the boxes and the mask.

    Returns:
        None if there is neither a box nor a mask.
    """
    height, width = region.precise.shape
    ys, xs = np.nonzero((region.precise > 0.5) | (fill_boxes(region.boxes, (height, width)) > 0))
    if not len(ys):
        return None
    (top, bottom), (left, right) = ((int(place.min()), int(place.max()) + 1) for place in (ys, xs))
    side = min(height, width, math.ceil(max(bottom - top, right - left) * (1 + 2 * margin)))
    y0 = min(max(0, (top + bottom - side) // 2), height - side)
    x0 = min(max(0, (left + right - side) // 2), width - side)
    return slice(y0, y0 + side), slice(x0, x0 + side)
