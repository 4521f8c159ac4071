"""The text to write into a picture: the quoted text in ``edited_object``, or none."""

import re
import unicodedata


class AnnotationError(ValueError):
    """A row that cannot be annotated. The message is a short reason, which is counted."""


_PAIRS = {
    '"': '"', "\uff02": "\uff02", "\u201c": "\u201d", "\u201d": "\u201d", "\u201e": "\u201c\u201d",
    "\u201f": "\u201d", "\u00ab": "\u00bb", "\u00bb": "\u00ab", "\u2039": "\u203a", "\u203a": "\u2039",
    "\u300c": "\u300d", "\u300e": "\u300f", "\u300a": "\u300b", "\u3008": "\u3009", "\u301d": "\u301e\u301f",
    "\uff62": "\uff63", "`": "`\u00b4", "\u00b4": "\u00b4", "'": "'", "\u2018": "\u2019",
    "\u2019": "\u2019", "\u201a": "\u2018\u2019", "\u201b": "\u2019",
}  # fmt: skip
"""Closing quotes by opening quote."""
_QUOTES = frozenset(_PAIRS) | frozenset("".join(_PAIRS.values()))
_ALSO_APOSTROPHES = "'\u2018\u2019\u201b`\u00b4"
_BLANK = re.compile(
    r"\b(blank|empty|plain|bare|unmarked|unlabell?ed|textless)\b"
    r"|\b(no|without( any)?) (text|words?|letters|lettering|writing)\b"
)
_SAYS = re.compile(
    r"\b(say|read|spell|show|display|bear|announce|state)(s|ing)?\b|\bsaid\b|\b(label(l?ed)|titled|named|marked"
    r"|lettered|inscribed)\b"
)
_ERASES = re.compile(r"^(remove|erase|delete|clear|wipe)\b")
_WRITES = re.compile(r"\b(write|put|set|add|change|replace|rewrite|say|read|make|show|display|spell|leave)\b")


def new_text(edited_object: str, instruction: str = "") -> str:
    """The quoted text in ``edited_object``; empty if the text is to be removed.

    Quotes can be straight, curly, low, angled, Japanese or backticks, single or double. Apostrophes
    (``don't``, ``the players' bench``) are not quotes. White space counts as one space.

    Args:
        edited_object: a description of the new content.
        instruction: if nothing is quoted, instruction or edited object must say that the text is removed, for
            example "a blank sign".

    Raises:
        AnnotationError: text_not_quoted (no quotes, and no removal), text_quotes_unclear (an unclosed quote),
            or several_texts.
    """
    texts = _quoted(edited_object)
    if len(texts) > 1:
        raise AnnotationError("several_texts")
    if texts:
        return " ".join(unicodedata.normalize("NFC", texts[0]).split())
    if not _is_to_go(edited_object.casefold(), instruction.strip().casefold()):
        raise AnnotationError("text_not_quoted")
    return ""


def _is_to_go(edited_object: str, instruction: str) -> bool:
    if _SAYS.search(edited_object):
        return False
    erases = _ERASES.search(instruction) is not None and not _WRITES.search(instruction)
    return erases or _BLANK.search(edited_object) is not None


def _quoted(phrase: str) -> list[str]:
    """The quoted texts, in order."""
    texts, outside, at = [], "", 0
    by_apostrophes = False
    while at < len(phrase):
        if phrase[at] not in _QUOTES or _is_apostrophe(phrase, at):
            outside += phrase[at]
            at += 1
            continue
        end = _closing(phrase, at)
        if end is None:
            raise AnnotationError("text_quotes_unclear")
        texts.append(phrase[at + 1 : end])
        by_apostrophes |= phrase[end] in _ALSO_APOSTROPHES
        outside += " "
        at = end + 1
    if by_apostrophes and any(_ends_word(outside, at) for at in range(len(outside))):
        raise AnnotationError("text_quotes_unclear")  # 'the dogs' park': where does it end?
    return texts


def _closing(phrase: str, start: int) -> int | None:
    """The position of the closing quote. A mark that may be an apostrophe closes only after a word."""
    closing = _PAIRS.get(phrase[start], "")
    for at in range(start + 1, len(phrase)):
        if phrase[at] in closing and not _within_word(phrase, at):
            return at
    return None


def _is_apostrophe(phrase: str, at: int) -> bool:
    """Whether a mark outside of quotes is an apostrophe: it follows a letter or a digit."""
    return phrase[at] in _ALSO_APOSTROPHES and at > 0 and phrase[at - 1].isalnum()


def _ends_word(phrase: str, at: int) -> bool:
    return _is_apostrophe(phrase, at) and not _within_word(phrase, at)


def _within_word(phrase: str, at: int) -> bool:
    between = 0 < at < len(phrase) - 1 and phrase[at - 1].isalnum() and phrase[at + 1].isalnum()
    return phrase[at] in _ALSO_APOSTROPHES and between
