"""The text that is asked for is drawn, or the row is rejected with the reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.edit.annotations.font import check_glyphs
from stages.edit.annotations.lettering import draw_text, letters
from stages.written_text import _PAIRS, AnnotationError, new_text
from tests.stages.test_lettering import inside, row, sign

WORDS = st.text(st.characters(categories=("Lu", "Ll", "Nd"), max_codepoint=0x24F), min_size=1, max_size=8)


@given(st.sampled_from([(a, z) for a, closing in _PAIRS.items() for z in closing]), WORDS, WORDS)
def test_every_kind_of_quotes_is_read(quotes, first, second):
    phrase = f"a sign that says {quotes[0]}{first} {second}{quotes[1]} on a wall"
    assert new_text(phrase).split() == new_text(f'a sign that says "{first} {second}"').split()


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("a sign that says 'STOP'", "STOP"),
        ("a sign that says \u2018STOP\u2019", "STOP"),
        ("a sign that says 'DON'T WALK'", "DON'T WALK"),
        ("a sign that says \u2018don\u2019t walk\u2019", "don\u2019t walk"),
        ('a sign that says "don\'t walk"', "don't walk"),
        ('the players\' bench with "EXIT" on it', "EXIT"),
        ("Joe's sign that says `OPEN`", "OPEN"),
        ("\u300cSTOP\u300d\u3068\u3044\u3046\u770b\u677f", "STOP"),
        ("ein Schild \u201eHALT\u201c", "HALT"),
        ("un panneau \u00ab\u00a0ARR\u00caT\u00a0\u00bb", "ARR\u00caT"),
        ('a sign that says "SOLD\n OUT"', "SOLD OUT"),
        ("a 'STOP' sign", "STOP"),
        ('a sign that says ""', ""),
        ("a sign without any text", ""),
        ("a blank sign", ""),
    ],
)
def test_the_text_is_read(phrase, text):
    assert new_text(phrase) == text


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("a sign that says STOP", "text_not_quoted"),
        ("a STOP sign", "text_not_quoted"),
        ("a blank sign that reads STOP", "text_not_quoted"),
        ("a no parking sign", "text_not_quoted"),
        ("don't walk", "text_not_quoted"),
        ("a sign that says 'STOP", "text_quotes_unclear"),
        ('a sign that says "STOP', "text_quotes_unclear"),
        ("a sign that says STOP\u00bb", "text_quotes_unclear"),
        ("a sign that says 'the dogs' park'", "text_quotes_unclear"),
        ('a 5" board that says "HI"', "text_quotes_unclear"),
        ('a sign that says "STOP" and one that says "GO"', "several_texts"),
        ("a sign that says 'STOP' and 'GO'", "several_texts"),
    ],
)
def test_what_is_not_clear_is_rejected(phrase, reason):
    with pytest.raises(AnnotationError, match=reason):
        new_text(phrase)
    with pytest.raises(AnnotationError, match=reason):
        draw_text(row(phrase))


@pytest.mark.parametrize(
    ("instruction", "goes"),
    [
        ("remove the text from the sign", True),
        ("erase what is written on it", True),
        ("remove the old words and write STOP", False),
        ("change the sign", False),
        ("", False),
    ],
)
def test_without_quotes_the_instruction_must_say_that_the_text_is_to_go(instruction, goes):
    if goes:
        assert new_text("a sign", instruction) == ""
    else:
        with pytest.raises(AnnotationError, match="text_not_quoted"):
            new_text("a sign", instruction)


@given(st.text(max_size=30))
def test_any_phrase_is_read_or_rejected(phrase):
    try:
        text = new_text(phrase)
    except AnnotationError:
        return
    assert text == " ".join(text.split())


WRITABLE = [
    "STOP",
    "Caf\u00e9 M\u00fcller",
    "Cafe\u0301",
    "\u0421\u0422\u041e\u041f",
    "\u03a0\u03a1\u039f\u03a3\u039f\u03a7\u0397",
    "5 \u20ac",
]


@pytest.mark.parametrize("text", WRITABLE)
def test_what_the_font_has_is_drawn(text):
    drawn = draw_text(row(f'a sign that says "{text}"'))
    assert letters(inside(drawn)).any()
    assert (drawn != draw_text(row("a blank sign"))).any()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\u505c\u6b62", "glyph_missing"),
        ("\uc815\uc9c0", "glyph_missing"),
        ("\u0e2b\u0e22\u0e38\u0e14", "glyph_missing|text_needs_shaping"),
        ("STOP \U0001f6d1", "glyph_missing"),
        ("\u0642\u0641", "text_needs_shaping"),
        ("\u05e2\u05e6\u05d5\u05e8", "text_needs_shaping"),
        ("\u0930\u0941\u0915\u094b", "glyph_missing|text_needs_shaping"),
        ("S\u0336T\u0336", "text_needs_shaping"),
        ("\u202eSTOP", "text_needs_shaping"),
        ("a\u0007b", "glyph_missing"),
    ],
)
def test_what_the_font_cannot_write_is_rejected(text, reason):
    before = sign()
    with pytest.raises(AnnotationError, match=reason):
        draw_text(row(f'a sign that says "{text}"', before))
    assert (before == sign()).all()


@given(st.text(min_size=1, max_size=6))
def test_no_text_is_drawn_as_the_box_of_a_missing_glyph(text):
    from matplotlib.ft2font import FT2Font

    from stages.edit.annotations.font import _file

    try:
        check_glyphs(text)
    except AnnotationError:
        return
    font = FT2Font(str(_file()))
    assert all(font.get_char_index(ord(char)) for char in text)


def test_a_text_too_long_to_be_read_is_rejected():
    with pytest.raises(AnnotationError, match="text_too_long"):
        draw_text(row('a sign that says "' + "a very long text " * 8 + '"'))


def test_a_longer_text_takes_the_region_s_middle_before_it_is_too_small():
    image = sign("I")
    drawn = draw_text(row('a sign that says "ENTRANCE"', image))
    columns = np.where(letters(inside(drawn)).any(0))[0]
    assert np.ptp(columns) > 50
