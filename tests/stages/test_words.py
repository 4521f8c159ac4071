"""Texts as they are published, and words as they are compared."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.words import normalised, words_of


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("  a red\tbarn \r\n on\n\na hill ", "a red barn on a hill"),
        ("a\u00a0red\u2003barn\u2028on a\u3000hill", "a red barn on a hill"),
        ("the baker\u2019s \u201cOPEN\u201d sign", 'the baker\'s "OPEN" sign'),
        ("salt &amp; pepper&nbsp;mills, &#39;new&#x27;", "salt & pepper mills, 'new'"),
        ("the baker&amp;amp;#39;s", "the baker's"),
        ("AT&T, R&D &copy2021 fish &chips;", "AT&T, R&D &copy2021 fish &chips;"),
        ("cafe\u0301", "caf\u00e9"),
        ("\uff21 \uff42\uff41\uff52\uff4e", "A barn"),
        ("\ufb01re", "fire"),
        ("non\u2011stick", "non-stick"),
        (
            "\ufeffsoft\u00adhyphen zero\u200bwidth c\u200dar \u202ebidi\u202c",
            "softhyphen zerowidth car bidi",
        ),
        (
            "\U0001f468\u200d\U0001f467 \u0645\u06cc\u200c\u062e\u0648\u0627",
            "\U0001f468\u200d\U0001f467 \u0645\u06cc\u200c\u062e\u0648\u0627",
        ),
        ("\u0e23\u0e16\u0e2a\u0e35\u0e41\u0e14\u0e07", "\u0e23\u0e16\u0e2a\u0e35\u0e41\u0e14\u0e07"),
        ("10 m\u00b2 of \u00bd inch\u2122", "10 m\u00b2 of \u00bd inch\u2122"),
        ("&nbsp;\u200b\ufeff&shy;", ""),
        pytest.param("&" + "amp;" * 100_000 + "AMP;#39;s", "'s", id="escaped a hundred thousand times"),
        ("a\x1cb\x85c\x00\x1b[31m", "a\x1cb\x85c\x00\x1b[31m"),
    ],
)
def test_a_text_is_published_in_plain_characters_and_keeps_what_it_says(text, published):
    assert normalised(text) == published


MESSY = st.text(
    st.sampled_from("a\u0301&#39;mpltx \t\n\u2019\u00ad\u200d\uff26\uff06;\u1100\u1161\U0001f468'")
)


@given(st.text() | MESSY)
@example("&am&#112;;")
@example("\uff06amp;amp;")
def test_what_is_normalised_stays_as_it_is(text):
    once = normalised(text)
    assert normalised(once) == once
    assert words_of(once) == words_of(text)


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["NFC", "NFD"]))
def test_a_text_has_the_words_of_its_other_forms(text, form):
    assert words_of(unicodedata.normalize(form, text)) == words_of(text)
    assert words_of(f"\u00a0{text}\u200b\n") == words_of(text)


@given(st.lists(st.from_regex(r"[a-z]+(['-][a-z]+)?", fullmatch=True)))
def test_plain_words_are_what_they_were(words):
    assert words_of(", ".join(words).upper()) == words


@pytest.mark.parametrize(
    "text",
    [
        "it's",
        "It\u2019s",
        "it\u2018s",
        "it&#39;s",
        "it&rsquo;s",
        "it&apos;s",
        "it`s",
        "it\u00b4s",
        "it\u2032s",
        "it\u02bcs",
        "\uff29\uff34\uff07\uff33",
        "i\u00adt's",
        "it\u200b's",
        "it\u200d's",
        "it\ufeff's",
    ],
)
def test_an_apostrophe_is_an_apostrophe(text):
    assert words_of(f"\u201c{text}\u201d, 5\u2033!") == ["it's", "5"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\u7ea2\u8f66 SUV\u8f66", ["\u7ea2", "\u8f66", "suv", "\u8f66"]),
        ("\u8d64\u3044\u8eca", ["\u8d64", "\u3044", "\u8eca"]),
        ("\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48", ["\u0e17\u0e35\u0e48", "\u0e19\u0e35\u0e48"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092a\u093e\u0920",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092a\u093e\u0920"],
        ),
        ("\ube68\uac04 \uc790\ub3d9\ucc28", ["\ube68\uac04", "\uc790\ub3d9\ucc28"]),
        ("\u2764\ufe0f a_b 3.5", ["a", "b", "3", "5"]),
    ],
)
def test_words_of_other_scripts_are_whole(text, words):
    assert words_of(text) == words
