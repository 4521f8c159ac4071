"""A contact sheet of edits: rows of pictures with a line of text above each."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.shown import shown

SIDE = 160
"""Longer side of a picture in pixels. Smaller pictures are enlarged, larger ones reduced."""
_GAP, _MARGIN, _TEXT, _LINE = 4, 12, 14, 19
_INK, _FAINT, _PAPER = (24, 24, 28), (110, 110, 118), (255, 255, 255)


@dataclass(frozen=True)
class Line:
    """Pictures uint8 [H,W,3] with a word under each, and the text above them."""

    pictures: Sequence[tuple[np.ndarray, str]]
    text: str


def draw_sheet(lines: Sequence[Line], columns: int = 3) -> bytes:
    """PNG bytes of a sheet with ``columns`` lines side by side. Texts are drawn as plain text."""
    most = max(len(line.pictures) for line in lines)
    columns = max(1, min(columns, len(lines)))
    width, height = most * (SIDE + _GAP), SIDE + 2 * _LINE + 6
    rows = -(-len(lines) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + _MARGIN) + _MARGIN, rows * (height + _MARGIN) + _MARGIN), _PAPER
    )
    for index, line in enumerate(lines):
        row, column = divmod(index, columns)
        place = (_MARGIN + column * (width + _MARGIN), _MARGIN + row * (height + _MARGIN))
        sheet.paste(_cell(line, width, height), place)
    content = BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()


def _cell(line: Line, width: int, height: int) -> Image.Image:
    cell = Image.new("RGB", (width, height), _PAPER)
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(_TEXT)
    pen.text((0, 0), _fitting(line.text, font, width), _INK, font)
    small = ImageFont.load_default(_TEXT - 3)
    for index, (picture, word) in enumerate(line.pictures):
        x = index * (SIDE + _GAP)
        cell.paste(_fit(picture), (x, _LINE))
        pen.text((x, _LINE + SIDE + 2), _fitting(word, small, SIDE), _FAINT, small)
    return cell


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text as fits into one line."""
    text = shown(text[:200])
    while text and font.getlength(text) > width:
        text = text[:-4] + "..." if len(text) > 4 else ""
    return text


def _fit(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    factor = SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    square = Image.new("RGB", (SIDE, SIDE), _PAPER)
    square.paste(image.resize(size, Image.Resampling.LANCZOS), (0, 0))
    return square
