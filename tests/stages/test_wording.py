import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wording import a_picture, definite, phrase_in_a_sentence, shown_in


@pytest.mark.parametrize(
    ("phrase", "known"),
    [
        ("a red car", "the red car"),
        ("An owl", "the owl"),
        ("the sea", "the sea"),
        ("her hat", "her hat"),
        ("some flowers", "the flowers"),
        ("another dog", "the dog"),
        ("those boats", "those boats"),
        ("A red car.", "the red car"),
        ("blueberries", "the blueberries"),
        ("", ""),
    ],
)
def test_a_phrase_becomes_definite(phrase, known):
    assert definite(phrase) == known


@pytest.mark.parametrize(
    ("caption", "named", "shown"),
    [
        ("a red car in a room", "a picture of a red car in a room", "a red car in a room"),
        ("A dog on a beach.", "a picture of a dog on a beach", "a dog on a beach"),
        ("Two dogs", "a picture of two dogs", "two dogs"),
        ("Paris at night", "a picture of Paris at night", "Paris at night"),
        ("a picture of a red car", "a picture of a red car", "a red car"),
        ("A photo of the Eiffel Tower", "a photo of the Eiffel Tower", "the Eiffel Tower"),
        ("Black and white photo of a cat", "a black and white photo of a cat", "a cat"),
        ("Aerial view of a city", "an aerial view of a city", "a city"),
        ("an oil painting of A lake", "an oil painting of A lake", "a lake"),
        ("image showing two cats", "an image showing two cats", "two cats"),
        ("a man is riding a horse", "a picture in which a man is riding a horse", "a man is riding a horse"),
        ("There are two cats", "a picture in which there are two cats", "there are two cats"),
        ("a man who is old", "a picture of a man who is old", "a man who is old"),
        ("a wall with a picture of a cat", "a picture of a wall with a picture of a cat",
         "a wall with a picture of a cat"),
        ("a picture frame", "a picture of a picture frame", "a picture frame"),
    ],
)  # fmt: skip
def test_a_caption_is_named_as_a_picture_once(caption, named, shown):
    assert a_picture(caption) == named
    assert shown_in(caption) == shown


@given(st.text(st.sampled_from("aT picture of.photis\n{}"), max_size=60))
def test_naming_a_picture_twice_changes_nothing(caption):
    named = a_picture(caption)
    assert bool(named) == bool(phrase_in_a_sentence(caption))
    if "in which" not in named:
        assert a_picture(named) == named
    assert phrase_in_a_sentence(phrase_in_a_sentence(caption)) == phrase_in_a_sentence(caption)
