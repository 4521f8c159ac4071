"""Targets computed from the picture: grounded boxes or masks drawn on it, and sketches.

An *annotation* is a function from a :class:`Subject` to a picture uint8 [H,W,3]. Further annotations are in
``adjust``, ``lettering`` and ``estimated``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from stages.pictures.region import Region

COLOR = np.array([255, 0, 200], np.uint8)
"""A magenta that is rare in photographs, so that an annotation stands out."""
OPACITY = 0.6

SKETCH_BLUR = 1 / 24
"""Sigma of the blur that shades a sketch, as a fraction of the picture's shorter side."""


@dataclass(frozen=True, eq=False)
class Subject:
    """The input of an annotation: a picture uint8 [H,W,3], the object's region, and the row's texts."""

    picture: np.ndarray
    region: Region
    instruction: str = ""
    edited_object: str = ""


Annotation = Callable[[Subject], np.ndarray]


def draw_boxes(subject: Subject) -> np.ndarray:
    """Outline the boxes. The line covers no pixel of the object."""
    image = subject.picture
    drawn = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 64))
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in subject.region.boxes:
        left, top = max(0, math.floor(x0) - thickness), max(0, math.floor(y0) - thickness)
        right, bottom = min(width, math.ceil(x1) + thickness), min(height, math.ceil(y1) + thickness)
        for line in (
            np.s_[top : top + thickness, left:right],
            np.s_[bottom - thickness : bottom, left:right],
            np.s_[top:bottom, left : left + thickness],
            np.s_[top:bottom, right - thickness : right],
        ):
            drawn[line] = COLOR
    return drawn


def draw_mask(subject: Subject) -> np.ndarray:
    """Tint the pixels of the precise mask."""
    return tinted(subject.picture, subject.region.precise)


def tinted(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture uint8 [H,W,3], tinted where a mask [H,W] in [0,1] is high."""
    alpha = OPACITY * mask[..., None]
    return np.round(picture * (1 - alpha) + COLOR * alpha).astype(np.uint8)


def draw_sketch(subject: Subject) -> np.ndarray:
    """A pencil sketch: the grey picture divided by its blur (colour dodge), which keeps edges and shades."""
    grey = cv2.cvtColor(subject.picture, cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(255 - grey, (0, 0), SKETCH_BLUR * min(grey.shape))
    return cv2.cvtColor(cv2.divide(grey, 255 - blurred, scale=256), cv2.COLOR_GRAY2RGB)
