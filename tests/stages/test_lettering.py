"""Written text, replaced in its place, size and colour."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from stages.edit.annotations.lettering import draw_text, letters, new_text
from stages.edit.annotations.marks import Subject
from stages.pictures.region import Region
from stages.written_text import AnnotationError

BOX = (40, 30, 160, 80)
INK, BOARD = (200, 30, 40), (240, 230, 210)


def sign(text: str = "OPEN", board: tuple[int, int, int] = BOARD) -> np.ndarray:
    """A board with a word on a grey wall, uint8 [120,200,3]."""
    picture = Image.new("RGB", (200, 120), (110, 110, 110))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill=board)
    if text:
        draw.text((100, 55), text, fill=INK, font=ImageFont.load_default(30), anchor="mm")
    return np.asarray(picture)


def row(edited: str, image: np.ndarray | None = None, box: tuple[int, ...] = BOX) -> Subject:
    picture = sign() if image is None else image
    region = Region(np.zeros(picture.shape[:2], np.float32), np.array([box], np.float32))
    return Subject(picture, region, edited_object=edited)


def inside(image: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = BOX
    return image[y0:y1, x0:x1]


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ('a sign that says "CLOSED"', "CLOSED"),
        ("a sign that says \u201cNo entry\u201d", "No entry"),
        ("a blank sign", ""),
        ('an empty "" sign', ""),
    ],
)
def test_the_new_text_is_what_stands_in_quotes(phrase, text):
    assert new_text(phrase) == text


def test_new_text_stands_where_the_old_stood_in_its_colour_and_nothing_else_changes():
    before = sign()
    after = draw_text(row('a sign that says "SHUT"', before))
    outside = np.ones(before.shape[:2], bool)
    outside[BOX[1] : BOX[3], BOX[0] : BOX[2]] = False
    assert (after[outside] == before[outside]).all()
    old, new = letters(inside(before)), letters(inside(after))
    for axis in (0, 1):
        extent = [np.where(ink.any(axis))[0] for ink in (old, new)]
        assert abs(extent[0].mean() - extent[1].mean()) < 8, "its place"
        assert 0.6 < np.ptp(extent[1]) / np.ptp(extent[0]) < 1.5, "its size"
    assert np.abs(np.median(inside(after)[new], 0) - INK).max() < 40, "its colour"
    assert (old != new).mean() > 0.02, "other letters"


def test_text_is_removed_where_none_is_to_be():
    after = draw_text(row("a blank sign"))
    assert not letters(inside(after)).any()
    assert np.abs(inside(after).astype(int) - BOARD).mean() < 6


@pytest.mark.parametrize(("board", "light"), [((30, 30, 60), True), (BOARD, False)])
def test_text_on_a_blank_board_stands_out(board, light):
    after = draw_text(row('a board that says "HELLO"', sign("", board)))
    ink = letters(inside(after))
    assert 0.02 < ink.mean() < 0.5
    assert (cv2.cvtColor(inside(after), cv2.COLOR_RGB2GRAY)[ink].mean() > 127) == light


def test_nothing_to_remove_and_regions_too_small_are_told():
    with pytest.raises(AnnotationError, match="no_text_to_replace"):
        draw_text(row("a blank sign", sign("")))
    with pytest.raises(AnnotationError, match="text_region_too_small"):
        draw_text(row('a sign that says "X"', box=(195, 110, 230, 140)))


def test_the_picture_given_is_not_drawn_on():
    before = sign()
    draw_text(row('a sign that says "SHUT"', before))
    assert (before == sign()).all()
