"""A contact sheet: a grid of pairs.

Each shows the input, the mask over the input, the target and the instruction.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import UserError
from pipeline.shown import shown
from pipeline.views.pairs import SHOWN_SCORES, Pair
from stages.pictures.png import decode_grey, decode_rgb

COLUMNS = 2
PICTURE = 256
"""Side of each square in pixels. Smaller pictures are enlarged, larger ones reduced."""
MAX_LINES = 3
"""Most lines of an instruction. The rest is cut off."""

_GAP, _MARGIN = 4, 16
_TEXT_SIZE, _SMALL_SIZE, _LINE = 17, 13, 22
_TINT = (255, 0, 90)
_INK, _FAINT, _PAPER = (24, 24, 28), (110, 110, 118), (255, 255, 255)
_CELL_WIDTH = 3 * PICTURE + 2 * _GAP
_CELL_HEIGHT = PICTURE + (MAX_LINES + 1) * _LINE + 8


def draw(pairs: Sequence[Pair]) -> bytes:
    """Draw a contact sheet of ``pairs`` and return it as PNG bytes.

    Instructions are drawn as plain text. A character missing in the font appears as a box.

    Raises:
        UserError: a picture cannot be decoded.
    """
    columns = max(1, min(COLUMNS, len(pairs)))
    rows = -(-len(pairs) // columns)
    size = [
        count * (cell + _MARGIN) + _MARGIN for count, cell in ((columns, _CELL_WIDTH), (rows, _CELL_HEIGHT))
    ]
    sheet = Image.new("RGB", (size[0], size[1]), _PAPER)
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        at = (_MARGIN + column * (_CELL_WIDTH + _MARGIN), _MARGIN + row * (_CELL_HEIGHT + _MARGIN))
        sheet.paste(_cell(pair), at)
    content = BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()


def _cell(pair: Pair) -> Image.Image:
    cell = Image.new("RGB", (_CELL_WIDTH, _CELL_HEIGHT), _PAPER)
    source, target, mask = map(Image.fromarray, _pictures(pair))
    mask = mask.resize(source.size)
    tinted = Image.composite(Image.blend(source, Image.new("RGB", source.size, _TINT), 0.6), source, mask)
    for index, picture in enumerate((source, tinted, target)):
        cell.paste(_fit(picture), (index * (PICTURE + _GAP), 0))
    pen = ImageDraw.Draw(cell)
    font, small = ImageFont.load_default(_TEXT_SIZE), ImageFont.load_default(_SMALL_SIZE)
    y = PICTURE + 6
    for line in wrap(pair.instruction, font, _CELL_WIDTH):
        pen.text((0, y), line, _INK, font)
        y += _LINE
    scores = [
        f"{name} {pair.scores[metric]:.3f}" for metric, name in SHOWN_SCORES.items() if metric in pair.scores
    ]
    pen.text((0, y), shown("   ".join([pair.task[:40], *scores, pair.id[:8]])), _FAINT, small)
    return cell


def _pictures(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        return decode_rgb(pair.input_png), decode_rgb(pair.target_png), decode_grey(pair.mask_png)
    except ValueError as error:
        raise UserError(f"row {pair.id} cannot be drawn: {error}; editpairs validate looks at all") from error


def _fit(picture: Image.Image) -> Image.Image:
    """The whole picture, centred in a square."""
    square = Image.new("RGB", (PICTURE, PICTURE), _PAPER)
    factor = PICTURE / max(picture.size)
    resized = picture.resize(
        (max(1, round(picture.width * factor)), max(1, round(picture.height * factor))),
        Image.Resampling.LANCZOS,
    )
    square.paste(resized, ((PICTURE - resized.width) // 2, (PICTURE - resized.height) // 2))
    return square


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a text into at most MAX_LINES lines, each at most ``width`` pixels wide."""
    printable = "".join(character if character.isprintable() else " " for character in text[:1000])
    lines = [""]
    for word in printable.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    if len(lines) > MAX_LINES:
        lines = lines[:MAX_LINES]
        while lines[-1] and font.getlength(lines[-1] + " ...") > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += " ..."
    return lines
