"""The difference of two pictures outside an edit, as a picture for a person or a model to look at."""

import numpy as np

GAIN = 4
"""Factor on differences: a quarter of the range is white. Smaller ones are hard to see."""
BLUE = (40, 80, 220)
"""Colour of the area that is left out. A grey picture has no such colour."""


def outside_difference(first: np.ndarray, second: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The largest difference over RGB times ``GAIN``, in grey, where nothing may change; blue elsewhere.

    Args:
        first, second: uint8 [h,w,3].
        outside: where nothing may change, bool [h,w].

    Returns:
        uint8 [h,w,3].
    """
    change = np.abs(first.astype(np.int16) - second).max(-1, keepdims=True)
    grey = np.minimum(change * GAIN, 255).astype(np.uint8)
    return np.where(outside[..., None], grey, np.array(BLUE, np.uint8))
