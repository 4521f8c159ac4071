"""Pixel compositing and annotations."""

import numpy as np

from stages.edit.annotate import COLOR, draw_boxes, draw_mask
from stages.edit.composite import paste_outside

ANCHOR = np.full((64, 64, 3), 40, np.uint8)
TARGET = np.full((64, 64, 3), 200, np.uint8)


def square(value: float) -> np.ndarray:
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 20:40] = value
    return mask


def test_the_target_shows_fully_wherever_the_mask_is_not_zero():
    pasted = paste_outside(ANCHOR, TARGET, square(0.2))
    assert (pasted[20:40, 20:40] == 200).all(), "M itself would ghost"


def test_far_outside_the_anchor_is_untouched():
    pasted = paste_outside(ANCHOR, TARGET, square(1.0))
    assert (pasted[:14] == 40).all()
    assert (pasted[:, 46:] == 40).all()


def test_the_seam_is_feathered():
    line = paste_outside(ANCHOR, TARGET, square(1.0))[30, 10:20, 0]
    assert (np.diff(line.astype(int)) >= 0).all()
    assert ((line > 40) & (line < 200)).any()


def test_a_full_mask_is_the_target_and_an_empty_one_the_anchor():
    assert (paste_outside(ANCHOR, TARGET, np.ones((64, 64), np.float32)) == TARGET).all()
    assert (paste_outside(ANCHOR, TARGET, np.zeros((64, 64), np.float32)) == ANCHOR).all()


def test_a_box_is_outlined_where_it_is():
    drawn = draw_boxes(ANCHOR, np.array([[10, 20, 30, 50]], np.float32), square(0))
    changed = (drawn != ANCHOR).any(-1)
    ys, xs = np.where(changed)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (10, 20, 30, 50)
    assert not changed[25:45, 15:25].any(), "its inside stays"
    assert (ANCHOR == 40).all(), "the picture given is not drawn on"


def test_a_box_beyond_the_picture_is_clipped():
    drawn = draw_boxes(ANCHOR, np.array([[-5, -5, 80, 80]], np.float32), square(0))
    assert (drawn[0, 0] == COLOR).all()
    assert (drawn[63, 63] == COLOR).all()


def test_a_mask_is_tinted_where_it_is():
    drawn = draw_mask(ANCHOR, np.zeros((0, 4), np.float32), square(1.0))
    assert (drawn[:20] == ANCHOR[:20]).all()
    assert (np.abs(drawn[30, 30].astype(int) - COLOR) < np.abs(ANCHOR[30, 30].astype(int) - COLOR)).sum() >= 2
