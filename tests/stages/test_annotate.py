"""Targets computed from the picture: boxes, masks, adjustments and sketches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.edit.annotations.adjust import (
    OPERATIONS,
    STRENGTHS,
    Adjustment,
    adjust,
    adjustment,
    draw_adjusted,
)
from stages.edit.annotations.marks import COLOR, Subject, draw_boxes, draw_mask, draw_sketch
from stages.pictures.region import Region
from stages.written_text import AnnotationError
from tests.stages.test_composite import ANCHOR, square

PHOTO = np.random.default_rng(0).integers(60, 190, (48, 64, 3), np.uint8)
PHOTO[:, 30:, 0] = 200


NOWHERE = np.zeros((64, 64), np.float32)


def subject(picture: np.ndarray = ANCHOR, boxes=(), precise: np.ndarray = NOWHERE, **texts: str) -> Subject:
    return Subject(picture, Region(precise, np.array(boxes, np.float32).reshape(-1, 4)), **texts)


def test_a_box_is_outlined_where_it_is():
    drawn = draw_boxes(subject(boxes=[[10.5, 20, 29.5, 50]]))
    changed = (drawn != ANCHOR).any(-1)
    ys, xs = np.where(changed)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (9, 19, 31, 51)
    assert not changed[20:50, 10:30].any(), "its inside stays, to the last pixel that it touches"
    assert changed.sum() == 2 * (22 + 32) - 4, "one line around it"
    assert (ANCHOR == 40).all(), "the picture given is not drawn on"


def test_a_box_beyond_the_picture_is_clipped():
    drawn = draw_boxes(subject(boxes=[[-5, -5, 80, 80]]))
    assert (drawn[0, 0] == COLOR).all()
    assert (drawn[63, 63] == COLOR).all()


def test_a_mask_is_tinted_where_it_is():
    drawn = draw_mask(subject(precise=square(1.0)))
    assert (drawn[:20] == ANCHOR[:20]).all()
    assert (np.abs(drawn[30, 30].astype(int) - COLOR) < np.abs(ANCHOR[30, 30].astype(int) - COLOR)).sum() >= 2


@given(
    verb=st.sampled_from(list(OPERATIONS)),
    strength=st.sampled_from(STRENGTHS),
    end=st.sampled_from(["", "."]),
)
def test_an_instruction_says_what_is_done_and_how_strongly(verb, strength, end):
    for text in (f"{verb} the picture {strength}{end}", f"{verb.capitalize()}  {strength}{end}"):
        assert adjustment(text) == Adjustment(verb, strength)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "brighten the picture",
        "make it brighter slightly",
        "brightened slightly",
        "blur it slightly or strongly",
    ],
)
def test_other_instructions_are_not_understood(text):
    with pytest.raises(AnnotationError):
        adjustment(text)


@pytest.mark.parametrize("verb", list(OPERATIONS))
def test_every_adjustment_changes_the_picture_more_the_stronger_it_is(verb):
    changes = [
        np.abs(adjust(PHOTO, Adjustment(verb, strength)).astype(int) - PHOTO).mean() for strength in STRENGTHS
    ]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_what_the_verbs_mean():
    def after(verb: str) -> np.ndarray:
        return adjust(PHOTO, Adjustment(verb, "moderately")).astype(float)

    def colorfulness(image: np.ndarray) -> float:
        return (image.max(-1) - image.min(-1)).mean()

    assert after("darken").mean() < PHOTO.mean() < after("brighten").mean()
    assert after("reduce the contrast").std() < PHOTO.std() < after("increase the contrast").std()
    assert colorfulness(after("reduce the saturation")) < colorfulness(PHOTO)
    assert colorfulness(after("increase the saturation")) > colorfulness(PHOTO)
    assert after("blur").std() < PHOTO.std() < after("sharpen").std()
    grey_before, grey_after = (
        image.astype(float).max(-1).mean() for image in (PHOTO, after("shift the hue"))
    )
    assert abs(grey_before - grey_after) < 2, "a shifted hue keeps the value"


def test_the_row_is_adjusted_as_its_instruction_says():
    drawn = draw_adjusted(subject(PHOTO, instruction="darken the photo strongly"))
    assert (drawn == adjust(PHOTO, Adjustment("darken", "strongly"))).all()


def test_a_sketch_is_grey_light_where_it_is_even_and_dark_at_edges():
    image = np.full((64, 64, 3), 180, np.uint8)
    image[:, 32:] = (40, 90, 60)
    sketch = draw_sketch(subject(image))
    assert sketch.dtype == np.uint8
    assert sketch.shape == image.shape
    assert (sketch[..., 0] == sketch[..., 1]).all()
    assert (sketch[..., 1] == sketch[..., 2]).all()
    assert sketch[:, :20].min() > 240
    assert sketch[:, -20:].min() > 240
    assert sketch[:, 32:35].max() < 220
