import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.pictures.fidelity import as_float, gmsd, mask_fit, mean_change, ssim

SHAPE = (32, 32)
EVERYWHERE = np.ones(SHAPE, bool)
LEFT = np.zeros(SHAPE, bool)
LEFT[:, :16] = True


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)


def test_one_level_is_a_small_change_both_ways():
    dark, light = np.full((*SHAPE, 3), 100, np.uint8), np.full((*SHAPE, 3), 101, np.uint8)
    assert (light - dark).mean() / 255 != (dark - light).mean() / 255  # what integers do
    there = mean_change(as_float(dark), as_float(light), EVERYWHERE)
    back = mean_change(as_float(light), as_float(dark), EVERYWHERE)
    assert there == back == pytest.approx(1 / 255, abs=1e-6)


@pytest.mark.parametrize("metric", [mean_change, ssim])
def test_integer_pictures_are_refused(metric):
    with pytest.raises(TypeError, match="floats"):
        metric(noise(0), noise(1), EVERYWHERE)


@given(st.integers(0, 99), st.integers(0, 99))
def test_change_is_symmetric_and_bounded(a, b):
    first, second = as_float(noise(a)), as_float(noise(b))
    change = mean_change(first, second, EVERYWHERE)
    assert change == mean_change(second, first, EVERYWHERE)
    assert 0 <= change <= 1
    assert (change == 0) == (a == b)


def test_black_to_white_is_a_change_of_one():
    black, white = np.zeros((*SHAPE, 3), np.float32), np.ones((*SHAPE, 3), np.float32)
    assert mean_change(black, white, LEFT) == 1


def test_a_change_counts_where_it_is_and_nowhere_else():
    before = as_float(noise(0))
    after = before.copy()
    after[:, 20:] = 1 - after[:, 20:]
    assert mean_change(before, after, LEFT) == 0
    assert mean_change(before, after, ~LEFT) > 0.2
    assert ssim(before, after, LEFT[:, ::-1]) < 0.6
    far = np.zeros(SHAPE, bool)
    far[:, :8] = True
    assert ssim(before, after, far) == pytest.approx(1, abs=1e-5)


def test_ssim_of_equal_pictures_is_one_and_of_unlike_ones_low():
    picture = as_float(noise(0))
    assert ssim(picture, picture, EVERYWHERE) == pytest.approx(1, abs=1e-5)
    assert ssim(picture, as_float(noise(1)), EVERYWHERE) < 0.2


@pytest.mark.parametrize("region", [None, np.zeros(SHAPE, bool)])
@pytest.mark.parametrize("metric", [mean_change, ssim])
def test_without_a_region_there_is_no_metric(metric, region):
    assert metric(as_float(noise(0)), as_float(noise(1)), region) is None


def scene(ball: int, night: bool = False, side: int = 128) -> np.ndarray:
    """A horizon and a ball at a column of 128, in other colours at night."""
    sky, ground, thing = (
        ((20, 20, 60), (60, 40, 20), (120, 40, 40))
        if night
        else ((160, 210, 250), (230, 190, 120), (220, 60, 60))
    )
    image = np.full((128, 128, 3), sky, np.uint8)
    image[80:] = ground
    cv2.circle(image, (ball, 70), 16, thing, -1)
    return as_float(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))


def test_gmsd_is_small_at_night_and_large_where_things_move():
    day = scene(40)
    assert gmsd(day, day) == pytest.approx(0, abs=1e-6)
    assert gmsd(day, scene(40, night=True)) < 0.265 < gmsd(day, scene(60))


def test_gmsd_sees_a_hill_in_haze_that_moved():
    hazy, moved = scene(40), scene(40)
    for image, column in ((hazy, 90), (moved, 110)):
        cv2.circle(image, (column, 80), 14, (0.66, 0.83, 0.97), -1)
    assert gmsd(hazy, moved) > 0.1


def test_gmsd_hardly_depends_on_the_resolution():
    small, large = (gmsd(scene(40, side=side), scene(70, side=side)) for side in (64, 512))
    assert small == pytest.approx(large, abs=0.05)


@given(st.integers(0, 99), st.integers(0, 99))
def test_gmsd_is_symmetric_and_bounded(a, b):
    first, second = as_float(noise(a)), as_float(noise(b))
    value = gmsd(first, second)
    assert value == pytest.approx(gmsd(second, first))
    assert 0 <= value <= 0.5


def test_mask_fit_is_one_where_detector_and_segmenter_agree():
    mask = np.zeros((40, 40), np.float32)
    mask[10:20, 5:25] = 1
    box = np.array([[5, 10, 25, 20]], np.float32)
    assert mask_fit(box, mask) == 1
    halves = np.array([[5, 10, 15, 20], [15, 10, 25, 20]], np.float32)
    assert mask_fit(halves, mask) == 1, "several boxes are one frame"


def test_mask_fit_falls_where_the_mask_runs_out_of_the_box():
    mask = np.zeros((40, 40), np.float32)
    mask[10:20, 5:25] = 1
    mask[0, 5] = 0.6
    assert mask_fit(np.array([[5, 10, 25, 20]], np.float32), mask) == pytest.approx(0.5)
    assert mask_fit(np.array([[30, 30, 40, 40]], np.float32), mask) == 0
    assert mask_fit(np.array([[5, 10, 25, 20]], np.float32), np.zeros((40, 40), np.float32)) == 0
