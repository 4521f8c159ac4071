"""Text in a picture: the old text in a region is erased, and new text is drawn in its place, size and colour.

:func:`stages.written_text.new_text` gives the new text. A text that cannot be drawn correctly is rejected.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from stages.edit.annotations.font import check_glyphs, font_of_size
from stages.edit.annotations.marks import Subject
from stages.written_text import AnnotationError, new_text

_CONTRAST = 40
"""Least difference between letters and background, in grey levels."""
_MOST_INK = 0.6
"""Largest share of the region that letters cover. A larger dark or light area is not text."""
_BLANK_WIDTH, _BLANK_HEIGHT = 0.8, 0.4
"""Largest share of a blank region's width and height that new text fills."""
_INPAINT_RADIUS = 3
SMALLEST = 8
"""Smallest legible font size in pixels."""

Place = tuple[int, int, int, int]
"""A place in a region: x0, y0, x1, y1 in pixels."""


def letters(region: np.ndarray) -> np.ndarray:
    """The pixels of a region uint8 [h,w,3] that are letters, bool [h,w]: the rarer side of Otsu's threshold.

    All False if both sides look alike or the rarer side is too common.
    """
    grey = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    _, light = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    ink = light.astype(bool) if light.mean() < 0.5 else ~light.astype(bool)
    nothing = np.zeros_like(ink)
    if not ink.any() or ink.mean() > _MOST_INK:
        return nothing
    contrast = abs(float(grey[ink].mean()) - float(grey[~ink].mean()))
    return ink if contrast >= _CONTRAST else nothing


def draw_text(subject: Subject) -> np.ndarray:
    """The picture with the text of the first box replaced, added or removed.

    Raises:
        AnnotationError: no_text_to_replace (the region has no text, and none is to be drawn),
            text_region_too_small, text_too_long (the text would be illegibly small), or an error of
            :func:`new_text` or :func:`check_glyphs`.
    """
    image = subject.picture
    height, width = image.shape[:2]
    text = new_text(subject.edited_object, subject.instruction)
    check_glyphs(text)
    x0, y0, x1, y1 = np.clip(np.round(subject.region.boxes[0]).astype(int), 0, [width, height, width, height])
    if x1 - x0 < 8 or y1 - y0 < 8:
        raise AnnotationError("text_region_too_small")
    region = image[y0:y1, x0:x1]
    ink = letters(region)
    if not ink.any() and not text:
        raise AnnotationError("no_text_to_replace")
    drawn = image.copy()
    drawn[y0:y1, x0:x1] = _set(_erased(region, ink), text, ink, _color(region, ink))
    return drawn


def _erased(region: np.ndarray, ink: np.ndarray) -> np.ndarray:
    if not ink.any():
        return region
    wider = cv2.dilate(ink.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    return cv2.inpaint(region, wider, _INPAINT_RADIUS, cv2.INPAINT_TELEA)


def _places(ink: np.ndarray) -> list[Place]:
    """Places for the new text: the old text's place, then the middle of the region as a fallback."""
    height, width = ink.shape
    wide, high = int(width * _BLANK_WIDTH), int(height * _BLANK_HEIGHT)
    left, top = (width - wide) // 2, (height - high) // 2
    middle = (left, top, left + wide, top + high)
    if not ink.any():
        return [middle]
    rows, columns = np.where(ink)
    return [(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1), middle]


def _color(region: np.ndarray, ink: np.ndarray) -> tuple[int, int, int]:
    """The old letters' median colour. On a blank region black or white, whichever has more contrast."""
    if ink.any():
        red, green, blue = np.median(region[ink], axis=0).astype(int).tolist()
        return red, green, blue
    return (0, 0, 0) if region.mean() > 127 else (255, 255, 255)


def _set(region: np.ndarray, text: str, ink: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Draw ``text`` centred where the old letters stood, as large as possible."""
    if not text:
        return region
    for place in _places(ink):
        size = _fitting_size(text, place)
        if size >= SMALLEST:
            picture = Image.fromarray(region)
            centre = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
            ImageDraw.Draw(picture).text(centre, text, fill=color, font=font_of_size(size), anchor="mm")
            return np.asarray(picture)
    raise AnnotationError("text_too_long")


def _fitting_size(text: str, place: Place) -> int:
    """The largest font size at which the text fits into the place; at most the place's height."""
    x0, y0, x1, y1 = place
    size = max(SMALLEST, y1 - y0)
    left, top, right, bottom = font_of_size(size).getbbox(text)
    fit = min((x1 - x0) / max(1, right - left), (y1 - y0) / max(1, bottom - top))
    return int(size * fit)
