"""Written text: what stands in a region is erased, and new text is set in its place, size and colour.

The new text is that of :func:`stages.written_text.new_text`. One that cannot be drawn as
it is asked for is not drawn at all.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from stages.edit.annotations.font import check_glyphs, font_of_size
from stages.edit.annotations.marks import Subject
from stages.written_text import AnnotationError, new_text

_CONTRAST = 40
"""How far letters stand out from what they are written on, in levels of grey."""
_MOST_INK = 0.6
"""A share of the region that letters never cover: then it is no text."""
_BLANK_WIDTH, _BLANK_HEIGHT = 0.8, 0.4
"""Of a region without text, the part that new text may fill."""
_INPAINT_RADIUS = 3
SMALLEST = 8
"""Size of the font in pixels below which letters cannot be read."""

Place = tuple[int, int, int, int]
"""Within a region: x0, y0, x1, y1."""


def letters(region: np.ndarray) -> np.ndarray:
    """Which pixels of a region uint8 [h,w,3] are letters, bool [h,w]: the rarer side of Otsu's threshold.

    Nothing where both sides look alike or the rarer one is too common.
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
        AnnotationError: no_text_to_replace (nothing is written there and nothing is to be),
            text_region_too_small, text_too_long (it would be too small to read), or one of
            :func:`new_text` and :func:`check_glyphs`.
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
    """Where the text stands, and, where that is too small or there is none, the middle of the region."""
    height, width = ink.shape
    wide, high = int(width * _BLANK_WIDTH), int(height * _BLANK_HEIGHT)
    left, top = (width - wide) // 2, (height - high) // 2
    middle = (left, top, left + wide, top + high)
    if not ink.any():
        return [middle]
    rows, columns = np.where(ink)
    return [(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1), middle]


def _color(region: np.ndarray, ink: np.ndarray) -> tuple[int, int, int]:
    """The old letters' median colour; on a blank region black or white, whichever stands out."""
    if ink.any():
        red, green, blue = np.median(region[ink], axis=0).astype(int).tolist()
        return red, green, blue
    return (0, 0, 0) if region.mean() > 127 else (255, 255, 255)


def _set(region: np.ndarray, text: str, ink: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Draw ``text`` as large as fits where the old letters stood, centred."""
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
    """The greatest size of the font, at most the place's height, at which a text fits into it."""
    x0, y0, x1, y1 = place
    size = max(SMALLEST, y1 - y0)
    left, top, right, bottom = font_of_size(size).getbbox(text)
    fit = min((x1 - x0) / max(1, right - left), (y1 - y0) / max(1, bottom - top))
    return int(size * fit)
