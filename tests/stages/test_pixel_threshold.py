import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.pictures.pixel_threshold import KERNEL, keep_unchanged, kernel_of

PICTURES = arrays(np.float32, (9, 7, 3), elements=st.floats(0, 1, width=32))


@given(PICTURES, PICTURES, st.floats(0, 3), st.sampled_from([1, 3, 5]))
def test_every_pixel_is_of_one_of_the_two(before, after, alpha, kernel):
    result = keep_unchanged(before, after, alpha, kernel)
    old, new = (result == before).all(-1), (result == after).all(-1)
    assert (old | new).all()


@given(PICTURES, PICTURES)
def test_without_a_neighbourhood_a_pixel_is_kept_by_its_own_difference(before, after):
    result = keep_unchanged(before, after, alpha=0.5, kernel=1)
    for row in range(9):
        for column in range(7):
            d = sum(abs(float(after[row, column, c]) - float(before[row, column, c])) for c in range(3))
            if abs(d - 0.5) > 1e-6:
                expected = before if d < 0.5 else after
                assert (result[row, column] == expected[row, column]).all()


@given(PICTURES)
def test_a_picture_against_itself_stays(picture):
    assert (keep_unchanged(picture, picture) == picture).all()


def test_rounding_is_undone_and_an_edit_stays():
    rng = np.random.default_rng(0)
    before = rng.random((32, 32, 3))
    after = np.clip(before + rng.uniform(-0.008, 0.008, before.shape), 0, 1)
    after[8:16, 8:16] = 1 - before[8:16, 8:16]
    result = keep_unchanged(before, after)
    assert (result[8:16, 8:16] == after[8:16, 8:16]).all()
    assert (result[20:, 20:] == before[20:, 20:]).all()


def test_one_speckle_is_smoothed_away_by_a_neighbourhood_alone():
    before = np.zeros((15, 15, 3))
    after = before.copy()
    after[7, 7] = 0.05
    assert (keep_unchanged(before, after, kernel=5) == before).all()
    assert (keep_unchanged(before, after, kernel=1)[7, 7] == after[7, 7]).all()


@pytest.mark.parametrize("kernel", [0, 4, -1])
def test_a_kernel_is_odd(kernel):
    with pytest.raises(ValueError, match="odd"):
        keep_unchanged(np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), kernel=kernel)


def test_pictures_are_of_one_size():
    with pytest.raises(ValueError, match="size"):
        keep_unchanged(np.zeros((4, 4, 3)), np.zeros((4, 5, 3)))


@given(st.floats(0, 0.5), st.integers(1, 2048), st.integers(1, 2048))
def test_a_kernel_is_the_odd_number_nearest_to_its_share_of_the_shorter_side(fraction, height, width):
    kernel = kernel_of(fraction, (height, width, 3))
    assert kernel % 2 == 1
    assert kernel == 1 or abs(kernel - fraction * min(height, width)) <= 1


def test_the_kernel_grows_with_the_picture():
    assert [kernel_of(KERNEL, (side, 2 * side, 3)) for side in (64, 512, 1024)] == [5, 41, 81]
