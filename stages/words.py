"""Text of captions and answers: cleaning it once, and deciding when two words are equal.

Captions from the web contain curly quotes, HTML entities, decomposed accents, full-width letters and
invisible characters. A language model answers in plain characters. ``normalised`` text is published. Phrases
are searched for by ``words_of``, never by comparing characters.
"""

import unicodedata

import regex
from ftfy.fixes import fix_character_width, fix_latin_ligatures, uncurl_quotes, unescape_html

_SPACES = regex.compile(r"[\t\n\v\f\r\p{Z}]+")
_INVISIBLE = regex.compile(
    # Joiners shape emoji and the letters of many scripts, but have no effect beside an ASCII character.
    r"(?V1)[\p{Cf}--\u200c\u200d]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
_FORMAT = regex.compile(r"\p{Cf}")
_AMPERSANDS = regex.compile("&(?:amp;)+", regex.IGNORECASE)
_HYPHENS = {0x2010: "-", 0x2011: "-"}
_APOSTROPHES = dict.fromkeys(map(ord, "`\u00b4\u02b9\u02bb\u2032"), "'")
"""Characters used as apostrophes besides the curly ones."""
_ARTICLES = ("a", "an", "the")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[\p{{L}}\p{{N}}--{_UNSPACED}]"
_WORD = regex.compile(
    rf"(?V1)[{_UNSPACED}]\p{{M}}*|{_LETTER}(?:{_LETTER}|\p{{M}})*(?:['-]{_LETTER}(?:{_LETTER}|\p{{M}})*)*"
)


def normalised(text: str) -> str:
    """A text in its published form. Normalising it again changes nothing.

    White space becomes single spaces; HTML entities become characters; curly quotes and full-width letters
    become plain ones; accents are composed (NFC); invisible characters are removed. Control characters stay:
    the caller rejects them.
    """
    text = _AMPERSANDS.sub("&", text)  # each round of the loop below would undo one of them
    while (cleaned := _cleaned(text)) != text:
        text = cleaned  # an entity can be part of another one: &amp;#39;
    return text


def words_of(text: str) -> list[str]:
    """The words of a text in comparable form: normalised, compatibility forms (NFKC), case folded.

    Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) give one word per
    character, so that a phrase is found anywhere inside a text.
    """
    plain = unicodedata.normalize("NFKC", _FORMAT.sub("", normalised(text)).translate(_APOSTROPHES))
    return _WORD.findall(plain.casefold())


def without_article(words: list[str]) -> list[str]:
    """The words of a phrase without its leading article; a phrase of one word stays."""
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _cleaned(text: str) -> str:
    text = fix_latin_ligatures(uncurl_quotes(fix_character_width(unescape_html(text)))).translate(_HYPHENS)
    return _SPACES.sub(" ", unicodedata.normalize("NFC", _INVISIBLE.sub("", text))).strip(" ")
