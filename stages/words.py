"""The text of captions and answers: how it is cleaned once, and when two words count as the same word.

Captions of the web come with curly quotes, HTML entities, decomposed accents, full-width letters and
invisible characters; a language model answers in plain ones. What is published is ``normalised``; phrases
are looked for by ``words_of``, never by comparing characters.
"""

import unicodedata

import regex
from ftfy.fixes import fix_character_width, fix_latin_ligatures, uncurl_quotes, unescape_html

_SPACES = regex.compile(r"[\t\n\v\f\r\p{Z}]+")
_INVISIBLE = regex.compile(
    # The joiners shape emoji and the letters of many scripts, but nothing beside an ASCII character.
    r"(?V1)[\p{Cf}--\u200c\u200d]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_FORMAT = regex.compile(r"\p{Cf}")
_HYPHENS = {0x2010: "-", 0x2011: "-"}
_APOSTROPHES = dict.fromkeys(map(ord, "`\u00b4\u02b9\u02bb\u2032"), "'")
"""What people and programs write for an apostrophe, besides the curly ones."""
_ARTICLES = ("a", "an", "the")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[\p{{L}}\p{{N}}--{_UNSPACED}]"
_WORD = regex.compile(
    rf"(?V1)[{_UNSPACED}]\p{{M}}*|{_LETTER}(?:{_LETTER}|\p{{M}})*(?:['-]{_LETTER}(?:{_LETTER}|\p{{M}})*)*"
)


def normalised(text: str) -> str:
    """A text as it is published; normalising it again changes nothing.

    White space becomes single spaces, HTML entities their characters, curly quotes and full-width letters
    plain ones, accents composed (NFC); characters that show nothing go. Control characters stay, for
    the caller to refuse.
    """
    while (cleaned := _cleaned(text)) != text:
        text = cleaned  # an entity may stand for a part of another one: &amp;#39;
    return text


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: normalised, compatibility forms (NFKC) and case folded.

    Scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) give a word a
    character, so that a phrase is found wherever its text stands.
    """
    plain = unicodedata.normalize("NFKC", _FORMAT.sub("", normalised(text)).translate(_APOSTROPHES))
    return _WORD.findall(plain.casefold())


def without_article(words: list[str]) -> list[str]:
    """The words of a phrase without its leading article; a phrase of one word stays."""
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _cleaned(text: str) -> str:
    text = fix_latin_ligatures(uncurl_quotes(fix_character_width(unescape_html(text)))).translate(_HYPHENS)
    return _SPACES.sub(" ", unicodedata.normalize("NFC", _INVISIBLE.sub("", text))).strip(" ")
