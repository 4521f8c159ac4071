"""The model's answer: parsed as data, then checked against what its task promises."""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.instruct.prompt import ANSWER_KEYS
from stages.tasks import Fields

MAX_ANSWER_CHARS = 20_000
"""What of an answer is looked at."""
MAX_CHARS = {
    "edit": 400,
    "edited_object": 200,
    "output_caption": 2000,
    "original_object": 200,
    "surroundings": 200,
}

_MAX_OPENINGS = 20
_MARKUP = re.compile(r"</?[a-z!]|```|\]\(|https?://|<\|", re.IGNORECASE)
"""Tags, code fences, links and chat markup: no caption or instruction needs them."""
_TALK = re.compile(
    r"^(i|i'm|i am|sorry|sure|certainly|here|note|as an?|ignore|disregard|please ignore|you are|system)\b"
    r"|\b(previous|above|prior) instructions\b|\b(language model|system prompt)\b"
)
"""What a model says to its reader instead of an instruction for an editor."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_ARTICLES = {"a", "an", "the"}


class AnswerError(ValueError):
    """An answer that cannot be used; the message is the short reason that is counted."""


@dataclass(frozen=True)
class Answer:
    """What the model answered; phrases it left out are empty."""

    edit: str
    edited_object: str
    output_caption: str
    original_object: str
    surroundings: str


def parse_answer(text: str) -> Answer:
    """Read the first JSON object in ``text``; a code fence or words around it do no harm.

    Raises:
        AnswerError: not_json, missing_field, not_text, too_long, control_characters, markup.
    """
    content = _first_object(text[:MAX_ANSWER_CHARS])
    if "edit" not in content:
        raise AnswerError("missing_field")
    return Answer(**{key: _field(content, key) for key in ANSWER_KEYS})


def check_answer(answer: Answer, caption: str, fields: Fields) -> None:
    """Hold an answer against the caption it was given for and the task's ``fields``.

    Phrases are compared by their words, without case, punctuation or a leading article.

    Raises:
        AnswerError: instruction_empty, instruction_is_caption, instruction_is_talk, output_caption_empty,
            caption_changed, caption_unchanged, <field>_empty, <field>_present,
            original_object_not_in_input, edited_object_not_in_output, edited_object_in_output,
            surroundings_empty, surroundings_name_object.
    """
    if not words_of(answer.edit):
        raise AnswerError("instruction_empty")
    before, after = words_of(caption), words_of(answer.output_caption)
    if words_of(answer.edit) in (before, after):
        raise AnswerError("instruction_is_caption")
    if _TALK.search(answer.edit.casefold()):
        raise AnswerError("instruction_is_talk")
    if not after:
        raise AnswerError("output_caption_empty")
    if fields.caption == "same" and before != after:
        raise AnswerError("caption_changed")
    if fields.caption == "changed" and before == after:
        raise AnswerError("caption_unchanged")
    _check_phrase("original_object", answer.original_object, fields.original_object, before, "input")
    _check_phrase("edited_object", answer.edited_object, fields.edited_object, after, "output")
    if fields.surroundings == "required":
        around = words_of(answer.surroundings)
        if not around:
            raise AnswerError("surroundings_empty")
        if _contains(around, _bare(words_of(answer.edited_object))):
            raise AnswerError("surroundings_name_object")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.casefold())


def has_control_characters(text: str) -> bool:
    """Whether a text holds control characters or lone surrogates, which no caption needs."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _first_object(text: str) -> Mapping[str, Any]:
    decoder = json.JSONDecoder()
    openings = [match.start() for match in re.finditer(r"\{", text)][:_MAX_OPENINGS]
    for start in openings:
        try:
            content, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        return content
    raise AnswerError("not_json")


def _field(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AnswerError("not_text")
    if len(value) > MAX_CHARS[key]:
        raise AnswerError("too_long")
    if has_control_characters(value):
        raise AnswerError("control_characters")
    if _MARKUP.search(value):
        raise AnswerError("markup")
    return value.strip()


def _check_phrase(name: str, phrase: str, rule: str, words: list[str], where: str) -> None:
    wanted = words_of(phrase)
    if rule == "absent" and wanted:
        raise AnswerError(f"{name}_present")
    if rule in ("absent", "optional"):
        return
    if not wanted:
        raise AnswerError(f"{name}_empty")
    found = _contains(words, _bare(wanted))
    if rule == f"in_{where}" and not found:
        raise AnswerError(f"{name}_not_in_{where}")
    if rule == f"not_in_{where}" and found:
        raise AnswerError(f"{name}_in_{where}")


def _bare(words: list[str]) -> list[str]:
    """A phrase's words without its leading article."""
    return words[1:] if len(words) > 1 and words[0] in _ARTICLES else words


def _contains(words: list[str], phrase: list[str]) -> bool:
    length = len(phrase)
    return any(words[i : i + length] == phrase for i in range(len(words) - length + 1))
