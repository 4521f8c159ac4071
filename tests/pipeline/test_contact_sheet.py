from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from pipeline.errors import UserError
from pipeline.views.contact_sheet import MAX_LINES, PICTURE, draw, wrap
from pipeline.views.pairs import Pair
from stages.pictures.png import encode_png

FONT = ImageFont.load_default(17)


def pair(height: int = 64, width: int = 64, instruction: str = "Make it blue.") -> Pair:
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    return Pair(
        id="0123",
        task="color",
        instruction=instruction,
        input_png=encode_png(np.full((height, width, 3), (200, 0, 0), np.uint8)),
        target_png=encode_png(np.full((height, width, 3), (0, 0, 200), np.uint8)),
        mask_png=encode_png(mask),
        input_caption="red",
        output_caption="blue",
        scores={"clip_direction": 0.25},
    )


def sheet(pairs: list[Pair]) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(draw(pairs))))


def test_a_pair_is_input_mask_and_target_side_by_side():
    pixels = sheet([pair()])
    row = pixels[16 + PICTURE // 4]
    starts = [16 + k * (PICTURE + 4) + PICTURE // 2 for k in range(3)]
    source, masked, target = (tuple(map(int, row[x])) for x in starts)
    assert (source, target) == ((200, 0, 0), (0, 0, 200))
    assert masked not in (source, target)
    below_the_mask = pixels[16 + 3 * PICTURE // 4, starts[1]]
    assert tuple(map(int, below_the_mask)) == (200, 0, 0)


def test_the_instruction_is_drawn():
    blank = sheet([pair(instruction="")])
    written = sheet([pair()])
    assert blank.shape == written.shape
    assert (written != blank).any()
    assert (written[: 16 + PICTURE] == blank[: 16 + PICTURE]).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pairs_fill_a_grid(count):
    pixels = sheet([pair()] * count)
    targets = (pixels == (0, 0, 200)).all(-1)
    assert targets.sum() == count * PICTURE * PICTURE


def test_wide_and_large_pictures_are_shown_whole():
    pixels = sheet([pair(100, 400), pair(600, 300)])
    assert (pixels == (0, 0, 200)).all(-1).sum() == PICTURE * PICTURE // 4 + PICTURE * PICTURE // 2


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=400))
def test_any_text_can_be_drawn(text):
    assert draw([replace(pair(8, 8), instruction=text, task=text, id=text)])


@pytest.mark.parametrize("name", ["input_png", "target_png", "mask_png"])
def test_a_picture_that_is_none_is_a_message_with_the_row(name):
    with pytest.raises(UserError, match="row 0123"):
        draw([replace(pair(), **{name: b"\x89PNG\r\n\x1a\n"})])


@given(st.text(max_size=300), st.integers(40, 400))
def test_lines_are_few_and_fit(text, width):
    lines = wrap(text, FONT, width)
    assert 1 <= len(lines) <= MAX_LINES
    assert all(FONT.getlength(line) <= width for line in lines)


def test_a_long_instruction_is_cut_visibly():
    lines = wrap("remove the car " * 50, FONT, 300)
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith(" ...")
    assert wrap("remove the car", FONT, 300) == ["remove the car"]
