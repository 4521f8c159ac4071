"""The language model's answer: parsed as data, then checked against the requirements of its task."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.instruct.prompt import ANSWER_KEYS
from stages.models.chat.last_object import AnswerError, last_object
from stages.tasks import Fields
from stages.words import normalised, without_article, words_of

MAX_CHARS = {
    "edit": 400,
    "edited_object": 200,
    "output_caption": 2000,
    "original_object": 200,
    "surroundings": 200,
}

_MARKUP = re.compile(r"</?[a-z!]|```|\]\(|https?://|<\|", re.IGNORECASE)
"""Tags, code fences, links and chat markup: a caption or instruction never needs them."""
_TALK = re.compile(
    r"^(i|i'm|i am|sorry|sure|certainly|here|note|as an?|ignore|disregard|please ignore|you are|system)\b"
    r"|\b(previous|above|prior) instructions\b|\b(language model|system prompt)\b"
)
"""Sentences to a human reader in place of an edit instruction."""


@dataclass(frozen=True)
class Answer:
    """The fields of an answer; missing fields are empty."""

    edit: str
    edited_object: str
    output_caption: str
    original_object: str
    surroundings: str


def parse_answer(text: str) -> Answer:
    """Read the last JSON object in ``text`` that is an answer. Thoughts, drafts and code fences are ignored.

    Texts are normalised like captions (:func:`stages.words.normalised`).

    Raises:
        AnswerError: empty, not_json, missing_field, not_text, too_long, control_characters, markup.
    """
    content = last_object(text, "edit", _is_whole)
    return Answer(**{key: text_field(content, key, MAX_CHARS[key]) for key in ANSWER_KEYS})


def check_answer(answer: Answer, caption: str, fields: Fields) -> None:
    """Check an answer against its caption and the ``fields`` required by the task.

    Phrases are compared word by word (:func:`stages.words.words_of`), without a leading article.

    Raises:
        AnswerError: instruction_empty, instruction_is_caption, instruction_is_talk, output_caption_empty,
            caption_changed, caption_unchanged, <field>_empty, <field>_present,
            original_object_not_in_input, edited_object_not_in_output, edited_object_in_output,
            surroundings_empty, surroundings_name_object.
    """
    check_instruction(answer.edit, caption, answer.output_caption)
    before, after = words_of(caption), words_of(answer.output_caption)
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
        if _contains(around, without_article(words_of(answer.edited_object))):
            raise AnswerError("surroundings_name_object")


def check_instruction(edit: str, *captions: str) -> None:
    """Check that a text can be an instruction to edit a picture, and is none of its captions.

    Raises:
        AnswerError: instruction_empty, instruction_is_caption, instruction_is_talk.
    """
    if not words_of(edit):
        raise AnswerError("instruction_empty")
    if words_of(edit) in [words_of(caption) for caption in captions]:
        raise AnswerError("instruction_is_caption")
    if _TALK.search(edit.casefold()):
        raise AnswerError("instruction_is_talk")


def has_control_characters(text: str) -> bool:
    """Whether a text contains control characters or lone surrogates; a caption needs neither."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether the object describes the edited picture, or says that there is nothing to edit."""
    return "output_caption" in content or not str(content["edit"] or "").strip()


def text_field(content: Mapping[str, Any], key: str, most: int) -> str:
    """A text of an answer, normalised; empty if it is missing.

    Args:
        most: most characters.

    Raises:
        AnswerError: not_text, too_long, control_characters, markup.
    """
    value = content.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AnswerError("not_text")
    if len(value) > most:
        raise AnswerError("too_long")
    text = normalised(value)
    if has_control_characters(value) or has_control_characters(text):
        raise AnswerError("control_characters")
    if _MARKUP.search(text):
        raise AnswerError("markup")
    return text


def _check_phrase(name: str, phrase: str, rule: str, words: list[str], where: str) -> None:
    wanted = words_of(phrase)
    if rule == "absent" and wanted:
        raise AnswerError(f"{name}_present")
    if rule in ("absent", "optional"):
        return
    if not wanted:
        raise AnswerError(f"{name}_empty")
    found = _contains(words, without_article(wanted))
    if rule == f"in_{where}" and not found:
        raise AnswerError(f"{name}_not_in_{where}")
    if rule == f"not_in_{where}" and found:
        raise AnswerError(f"{name}_in_{where}")


def _contains(words: list[str], phrase: list[str]) -> bool:
    length = len(phrase)
    return any(words[i : i + length] == phrase for i in range(len(words) - length + 1))
