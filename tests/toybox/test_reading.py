import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toybox.world.reading import Content, Look, content_of, read_caption
from toybox.world.scene import sample_caption, sample_scene


@given(st.integers(0, 2**32 - 1))
def test_a_caption_is_read_as_the_scene_it_describes(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    assert read_caption(sample_caption(scene, rng)) == content_of(scene)


def test_objects_are_read_from_left_to_right():
    content = read_caption("a snowy field at night with a striped red car to the left of an orange ball")
    things = (Look("car", "red", "striped"), Look("ball", "orange", "plain"))
    assert content == Content(things, "snow", "night")


@pytest.mark.parametrize(
    "text",
    [
        "a red car",
        "a red car on a beach in a meadow",
        "a red elephant and a car on a beach",
        "a car in a room",
        "",
    ],
)
def test_what_the_world_does_not_say_is_refused(text):
    with pytest.raises(ValueError, match="not a caption"):
        read_caption(text)
