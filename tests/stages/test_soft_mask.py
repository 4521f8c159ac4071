import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.mask.stage import SoftMaskWeights
from stages.pictures.masks import fill_boxes, smooth_mask, soft_mask, without_specks
from stages.pictures.region import MaskedRegion, Region

SIDE = 64


@st.composite
def shapes(draw):
    """A binary mask of one or two ellipses, and the box of all."""
    mask = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(draw(st.integers(1, 2))):
        centre = (draw(st.integers(4, SIDE - 4)), draw(st.integers(4, SIDE - 4)))
        axes = (draw(st.integers(2, 20)), draw(st.integers(2, 20)))
        cv2.ellipse(mask, centre, axes, draw(st.integers(0, 180)), 0, 360, 1.0, -1)
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return mask, np.array([[x, y, x + w, y + h]], np.float32)


fractions = st.floats(0, 0.15)


@st.composite
def weights(draw):
    parts = np.array(draw(st.tuples(*[st.floats(0.01, 1)] * 3)))
    return tuple(float(p) for p in parts / parts.sum())


def test_small_holes_and_islands_go_and_large_ones_stay():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10:50, 10:50] = True
    whole = mask.copy()
    mask[20:23, 20:23] = False
    mask[5, 60] = True
    np.testing.assert_array_equal(without_specks(mask, 0.05), whole)
    np.testing.assert_array_equal(without_specks(mask, 0), mask)
    ring = whole.copy()
    ring[20:35, 20:35] = False
    ring[55:64, 50:64] = True
    np.testing.assert_array_equal(without_specks(ring, 0.05), ring)


@given(shapes(), st.floats(0, 0.5))
def test_without_specks_keeps_what_it_returns(shape, share):
    mask = shape[0] > 0
    once = without_specks(mask, share)
    assert once.any() == mask.any()
    assert once.dtype == bool
    np.testing.assert_array_equal(without_specks(once, 0), once)


@given(shapes(), fractions, fractions, weights())
def test_soft_masks_stay_between_0_and_1(shape, dilate, blur, mix):
    precise, boxes = shape
    smooth = smooth_mask(precise, dilate, blur)
    soft = soft_mask(precise, smooth, fill_boxes(boxes, precise.shape), mix)
    for mask in (smooth, soft):
        assert mask.dtype == np.float32
        assert mask.min() >= 0
        assert mask.max() <= 1
    np.testing.assert_allclose(soft[precise == 1], 1, atol=1e-5)


@given(shapes(), fractions, fractions)
def test_weights_1_0_0_give_the_precise_mask_exactly(shape, dilate, blur):
    precise, boxes = shape
    smooth = smooth_mask(precise, dilate, blur)
    soft = soft_mask(precise, smooth, fill_boxes(boxes, precise.shape), (1, 0, 0))
    np.testing.assert_array_equal(soft, precise)


@given(shapes(), fractions, fractions)
def test_smooth_mask_is_1_on_the_whole_object(shape, dilate, blur):
    precise, _ = shape
    smooth = smooth_mask(precise, dilate, blur)
    np.testing.assert_allclose(smooth[precise == 1], 1, atol=1e-5)
    assert (smooth >= precise - 1e-5).all()


def test_a_smooth_mask_is_dilated_before_it_is_blurred():
    """A known mistake is to overwrite the dilated mask by a blur of the undilated one."""
    precise = np.zeros((SIDE, SIDE), np.float32)
    precise[24:40, 24:40] = 1
    smooth = smooth_mask(precise, dilate=0.15, blur=0.04)
    assert smooth[32, 41] > 0.9, "two pixels outside: a blur of the undilated mask gives less than 0.5"
    assert 0 < smooth[32, 48] < 1, "the edge of the dilated mask is blurred"
    assert smooth[32, 60] == 0


def test_soft_mask_is_the_weighted_sum():
    precise, smooth, box = (np.full((2, 2), v, np.float32) for v in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(soft_mask(precise, smooth, box, (0.5, 0.3, 0.2)), 0.35, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"precise": 0.9}, {"smooth": -0.3, "box": 0.8}])
def test_weights_that_are_no_mixture_are_refused(wrong):
    with pytest.raises(ValidationError, match=r"must sum to 1|greater than or equal"):
        SoftMaskWeights(**wrong)


def test_boxes_are_filled_and_cut_at_the_picture():
    mask = fill_boxes(np.array([[-3, 2.2, 4, 5.5], [60.5, 60, 90, 90]]), (SIDE, SIDE))
    assert mask[2:6, 0:4].all()
    assert mask[60:, 60:].all()
    assert mask.sum() == 4 * 4 + 4 * 4
    assert fill_boxes(np.array([[-9, -9, -2, -2]]), (SIDE, SIDE)).sum() == 0


@given(shapes())
def test_object_masks_are_those_of_the_policy(shape):
    precise, boxes = shape
    smooth = smooth_mask(precise, 0.06, 0.02)
    soft = soft_mask(precise, smooth, fill_boxes(boxes, precise.shape), (0.5, 0.3, 0.2))
    region = MaskedRegion(precise, boxes, smooth, soft)
    assert region.edit_mask("object", "soft") is soft
    assert region.edit_mask("object", "precise") is precise
    assert region.edit_mask("object", "smooth") is smooth
    np.testing.assert_array_equal(region.edit_mask("object", "box"), fill_boxes(boxes, precise.shape))
    assert (region.edit_mask("object", "none") == 1).all()
    assert (region.edit_mask("all", "soft") == 1).all()


@given(shapes())
def test_background_mask_frees_all_but_the_object(shape):
    precise, boxes = shape
    mask = MaskedRegion(precise, boxes, precise, precise).edit_mask("background", "soft")
    assert mask.min() >= 0
    assert mask.max() <= 1
    window = np.ones((5, 5), np.uint8)
    np.testing.assert_allclose(mask[cv2.dilate(precise, window) == 0], 1, atol=1e-6)
    np.testing.assert_allclose(mask[cv2.erode(precise, window) == 1], 0, atol=1e-6)


def test_a_box_is_refused_for_a_background():
    mask = np.zeros((SIDE, SIDE), np.float32)
    with pytest.raises(ValueError, match="another mask policy"):
        MaskedRegion(mask, np.zeros((0, 4)), mask, mask).edit_mask("background", "box")


@given(shapes())
def test_inside_and_outside_never_touch(shape):
    precise, boxes = shape
    inside, outside = Region(precise, boxes).metric_regions("object")
    np.testing.assert_array_equal(inside, precise == 1)
    assert outside is not None
    near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not (near & outside).any()
    assert not (outside & (fill_boxes(boxes, precise.shape) > 0)).any()


@given(shapes())
def test_what_must_stay_of_a_background_edit_is_the_object(shape):
    precise, boxes = shape
    inside, outside = Region(precise, boxes).metric_regions("background")
    np.testing.assert_array_equal(inside, precise == 0)
    assert outside is not None
    assert (precise[outside] == 1).all()


def test_a_global_edit_has_no_outside():
    inside, outside = Region(np.zeros((SIDE, SIDE), np.float32), np.zeros((0, 4))).metric_regions("all")
    assert inside.all()
    assert outside is None
