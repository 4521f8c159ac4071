"""Wording of backward instructions: phrases and captions, fitted into a template of ours.

Captions come in three forms. "a red car on a beach" is put after "a picture of". "a photo of a red car"
already says what kind of picture it is. "a man is riding a horse" is a sentence.
"""

import regex

_POSSESSIVES = ("my", "your", "his", "her", "its", "our", "their")
_DETERMINED = (*_POSSESSIVES, "the", "this", "that", "these", "those")
_REPLACED = ("a", "an", "some", "any", "another")
"""Words in place of which a definite phrase has "the"."""
_LOWERED = (
    *_DETERMINED,
    *_REPLACED,
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("several", "many", "few", "there", "it", "he", "she", "they", "we", "you", "in", "on", "at"),
)
"""First words that have a capital at the beginning of a caption only."""
_KINDS = (
    "picture|image|photo|photograph|snapshot|shot|view|close-up|closeup|painting|drawing|illustration|"
    "rendering|render|sketch|scene|portrait|cartoon|watercolor|watercolour"
)
_OF_A_PICTURE = regex.compile(
    # At most four words lie between the article and the kind of picture: "a black and white aerial photo of".
    # "a car in a picture of ..." is no such caption: its words before "picture" include a preposition.
    rf"(?:(?P<article>an?|the)\s+)?(?P<kind>(?:(?!(?:of|in|on|at|with|near|by)\b)[\w'-]+,?\s+){{0,4}}(?:{_KINDS}))"
    r"\s+(?:of|showing|depicting)\s+(?P<shown>\S.*)",
    regex.IGNORECASE | regex.DOTALL,
)
_SENTENCE = regex.compile(r"\b(?:is|are|was|were)\b", regex.IGNORECASE)
_RELATIVE = regex.compile(r"\b(?:that|which|who|where)\b", regex.IGNORECASE)


def phrase_in_a_sentence(text: str) -> str:
    """A phrase as it stands inside a sentence: trimmed, without a capital or a final stop."""
    text = text.strip().rstrip(".,;:!").rstrip()
    first, space, rest = text.partition(" ")
    return f"{first.lower()}{space}{rest}" if first.casefold() in _LOWERED else text


def definite(phrase: str) -> str:
    """``a red car`` becomes ``the red car``; a phrase that is definite stays (``her hat``)."""
    phrase = phrase_in_a_sentence(phrase)
    first, _, rest = phrase.partition(" ")
    if first.casefold() in _REPLACED and rest:
        return f"the {rest}"
    return phrase if first.casefold() in _DETERMINED or not first else f"the {phrase}"


def a_picture(caption: str) -> str:
    """A phrase that names a picture by its caption.

    ``a red car`` becomes ``a picture of a red car``, ``a photo of a red car`` stays, and ``a man is riding a
    horse`` becomes ``a picture in which a man is riding a horse``. A caption without words stays empty.
    """
    caption = phrase_in_a_sentence(caption)
    if not caption:
        return ""
    if found := _OF_A_PICTURE.fullmatch(caption):
        return caption if found["article"] else f"{_article(found['kind'])} {_lowered(caption)}"
    return f"a picture {'in which' if _is_sentence(caption) else 'of'} {caption}"


def shown_in(caption: str) -> str:
    """What a caption says is shown: ``a photo of a red car`` becomes ``a red car``."""
    caption = phrase_in_a_sentence(caption)
    found = _OF_A_PICTURE.fullmatch(caption)
    return phrase_in_a_sentence(found["shown"]) if found else caption


def _is_sentence(caption: str) -> bool:
    verb, relative = _SENTENCE.search(caption), _RELATIVE.search(caption)
    return verb is not None and (relative is None or verb.start() < relative.start())


def _article(noun: str) -> str:
    return "an" if noun[:1].casefold() in "aeiou" else "a"


def _lowered(caption: str) -> str:
    """A caption that began with a kind of picture, such as "Photo of a dog", inside a sentence."""
    return caption[:1].lower() + caption[1:]
