import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.pictures.seam import seam

SIDE = 64
PICTURES = arrays(np.float32, (9, 7, 3), elements=st.floats(0, 1, width=32))
MASKS = arrays(np.float32, (9, 7), elements=st.floats(0, 1, width=32))


def square(inside: float = 1.0) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[16:48, 20:44] = inside
    return mask


def scene(seed: int = 0) -> np.ndarray:
    """A smooth gradient with a dark disc, float32 [h,w,3]."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.3, 0.7, SIDE)[:, None, None] * rng.uniform(0.6, 1, 3)
    picture = np.broadcast_to(ramp, (SIDE, SIDE, 3)).astype(np.float32).copy()
    return cv2.circle(picture, (30, 30), 7, (0.1, 0.1, 0.1), -1)


def pasted(before: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (mask[..., None] * drawn + (1 - mask[..., None]) * before).astype(np.float32)


@given(PICTURES, PICTURES, MASKS)
def test_it_lies_between_0_and_1_and_an_unchanged_picture_has_none(before, after, mask):
    found = seam(before, after, mask)
    assert (found is None) == (np.ptp(mask) == 0)
    if found is not None:
        assert 0 <= found <= 1
        assert seam(before, before, mask) == 0


@pytest.mark.parametrize("level", [0.1, 0.4])
def test_an_area_pasted_lighter_has_the_step_of_its_edge(level):
    flat = np.full((SIDE, SIDE, 3), 0.3, np.float32)
    assert seam(flat, pasted(flat, flat + level, square()), square()) == pytest.approx(level, rel=0.05)


def test_a_blurred_edge_hides_the_step():
    before = scene()
    sharp, soft = square(), cv2.GaussianBlur(square(), (0, 0), 4)
    assert seam(before, pasted(before, before + 0.2, soft), soft) < 0.1 * seam(
        before, pasted(before, before + 0.2, sharp), sharp
    )


def test_what_is_drawn_inside_the_mask_away_from_its_edge_is_no_seam():
    before = scene()
    drawn = cv2.circle(before.copy(), (30, 32), 8, (0.9, 0.2, 0.2), -1)
    assert seam(before, pasted(before, drawn, square()), square()) == 0


def test_an_edge_that_was_there_before_does_not_count():
    mask = square()
    before = pasted(scene(), scene() + 0.25, mask)
    after = np.clip(before * 0.9, 0, 1)
    assert seam(before, after, mask) < 0.005
    assert seam(before, scene(), mask) == pytest.approx(0, abs=0.005), "nor does its disappearance"


def test_a_gradient_across_the_edge_is_no_seam():
    before = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    ramp = np.broadcast_to(np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None], before.shape)
    assert seam(before, ramp.copy(), square()) < 0.001


def test_the_steps_of_a_mask_weigh_by_their_height():
    before = np.full((SIDE, SIDE, 3), 0.3, np.float32)
    mask = square(0.5)
    mask[24:40, 26:38] = 1.0  # the inner edge is as high as the outer one, and shorter
    inner = (mask == 1).astype(np.float32)
    outer = (mask > 0).astype(np.float32)
    both = seam(before, pasted(before, before + 0.2, outer), mask)
    assert 0 < seam(before, pasted(before, before + 0.2, inner), mask) < both
