"""Pixel compositing."""

import numpy as np

from stages.pictures.composite import paste_outside

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
