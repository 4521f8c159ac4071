"""The font that text is drawn in: DejaVu Sans, as matplotlib brings it, and what it can write."""

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

from stages.written_text import AnnotationError

_SHAPED = ("Mn", "Mc", "Me", "Cf")
"""Categories of characters that belong to the one before or join others: marks, joiners, directions."""
_RIGHT_TO_LEFT = ("R", "AL", "AN")


@cache
def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels. Letters are set one after the other, whatever Pillow was built with."""
    return ImageFont.truetype(_file(), size, layout_engine=ImageFont.Layout.BASIC)


def check_glyphs(text: str) -> None:
    """Check that every character of a text can be drawn as it is.

    Raises:
        AnnotationError: text_needs_shaping (it is written from right to left, or its letters join or
            stack), or glyph_missing.
    """
    for char in text:
        if unicodedata.category(char) in _SHAPED or unicodedata.bidirectional(char) in _RIGHT_TO_LEFT:
            raise AnnotationError("text_needs_shaping")
        if ord(char) not in _characters():
            raise AnnotationError("glyph_missing")


@cache
def _characters() -> frozenset[int]:
    """The code points that the font has a glyph for."""
    from fontTools.ttLib import TTFont

    return frozenset(TTFont(_file())["cmap"].getBestCmap())


def _file() -> Path:
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
