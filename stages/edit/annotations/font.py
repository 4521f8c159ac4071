"""The font for drawn text: DejaVu Sans, shipped with matplotlib, and the characters that it can draw."""

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

from stages.written_text import AnnotationError

_SHAPED = ("Mn", "Mc", "Me", "Cf")
"""Categories of characters that attach to the previous one or join others: marks, joiners, directions."""
_RIGHT_TO_LEFT = ("R", "AL", "AN")


@cache
def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels. Basic layout gives the same result with every build of Pillow."""
    return ImageFont.truetype(_file(), size, layout_engine=ImageFont.Layout.BASIC)


def check_glyphs(text: str) -> None:
    """Check that the font can draw every character of a text correctly.

    Raises:
        AnnotationError: text_needs_shaping (right-to-left text, or letters that join or stack), or
            glyph_missing.
    """
    for char in text:
        if unicodedata.category(char) in _SHAPED or unicodedata.bidirectional(char) in _RIGHT_TO_LEFT:
            raise AnnotationError("text_needs_shaping")
        if ord(char) not in _characters():
            raise AnnotationError("glyph_missing")


@cache
def _characters() -> frozenset[int]:
    """The code points for which the font has a glyph."""
    from fontTools.ttLib import TTFont

    return frozenset(TTFont(_file())["cmap"].getBestCmap())


def _file() -> Path:
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
