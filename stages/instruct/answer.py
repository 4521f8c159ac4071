"""The language model's answer: parsed as data, then checked against the requirements of its task."""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.instruct.prompt import ANSWER_KEYS
from stages.tasks import Fields
from stages.words import normalised, without_article, words_of

MAX_CHARS = {
    "edit": 400,
    "edited_object": 200,
    "output_caption": 2000,
    "original_object": 200,
    "surroundings": 200,
}

_THOUGHTS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis"
_OPENS_THOUGHT = re.compile(
    rf"[<\[◁]([a-z]+:)?({_THOUGHTS})[>\]▷]|<\|begin_of_({_THOUGHTS})\|>|<\|channel\|>\s*analysis",
    re.IGNORECASE,
)
_CLOSES_THOUGHT = re.compile(
    rf"[<\[◁]/([a-z]+:)?({_THOUGHTS})[>\]▷]|<\|end_of_({_THOUGHTS})\|>|<\|channel\|>\s*final",
    re.IGNORECASE,
)
"""Marks of a thought by several families of models: ``<think>``, ``[THINK]``, ``<|channel|>analysis``."""
_OPENING = re.compile(r"\{(?=\s*[\"}])")
"""Possible beginning of a JSON object."""
_ATTEMPT_COST, _MAX_COST = 1_000, 5_000_000
"""Largest number of characters read in vain in one reply, and the cost added for each attempt.

Without a bound, a text with 100 000 opening braces would be read from each of them to its end."""
_MARKUP = re.compile(r"</?[a-z!]|```|\]\(|https?://|<\|", re.IGNORECASE)
"""Tags, code fences, links and chat markup: a caption or instruction never needs them."""
_TALK = re.compile(
    r"^(i|i'm|i am|sorry|sure|certainly|here|note|as an?|ignore|disregard|please ignore|you are|system)\b"
    r"|\b(previous|above|prior) instructions\b|\b(language model|system prompt)\b"
)
"""Sentences to a human reader in place of an edit instruction."""


class AnswerError(ValueError):
    """The answer is unusable. The message is a short reason, which is counted."""


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
    if not text.strip():
        raise AnswerError("empty")
    content = _last_answer(_without_thoughts(text))
    return Answer(**{key: _field(content, key) for key in ANSWER_KEYS})


def check_answer(answer: Answer, caption: str, fields: Fields) -> None:
    """Check an answer against its caption and the ``fields`` required by the task.

    Phrases are compared word by word (:func:`stages.words.words_of`), without a leading article.

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
        if _contains(around, without_article(words_of(answer.edited_object))):
            raise AnswerError("surroundings_name_object")


def has_control_characters(text: str) -> bool:
    """Whether a text contains control characters or lone surrogates; a caption needs neither."""
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _without_thoughts(text: str) -> str:
    """The text after the last complete thought, up to an incomplete one."""
    closings = list(_CLOSES_THOUGHT.finditer(text))
    text = text[closings[-1].end() :] if closings else text
    unended = _OPENS_THOUGHT.search(text)
    return text[: unended.start()] if unended else text


def _last_answer(text: str) -> Mapping[str, Any]:
    """The last object with the keys of an answer; otherwise the last object with an instruction."""
    objects = [part for whole in _objects(text) for part in _answers_in(whole)]
    whole = [content for content in objects if _is_whole(content)]
    if not objects:
        raise AnswerError("missing_field")
    return (whole or objects)[-1]


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The complete, outermost JSON objects in a text, in order."""
    decoder, position, cost, found = json.JSONDecoder(), 0, 0, False
    while opening := _OPENING.search(text, position):
        start = opening.start()
        position = start + 1
        cost += _ATTEMPT_COST
        if cost > _MAX_COST:
            raise AnswerError("not_json")
        try:
            content, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            cost += error.pos - start
        except (ValueError, RecursionError):  # thousands of digits, or thousands of levels
            cost += len(text) - start
        else:
            found = True
            yield content
    if not found:
        raise AnswerError("not_json")


def _answers_in(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The object if it has an instruction; otherwise the objects inside it that have one, in order."""
    found: list[Mapping[str, Any]] = []
    waiting: list[Any] = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and "edit" in value:
            found.append(value)
        elif isinstance(value, dict | list):
            waiting += reversed(list(value.values()) if isinstance(value, dict) else value)
    return found


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Whether the object describes the edited picture, or says that there is nothing to edit."""
    return "output_caption" in content or not str(content["edit"] or "").strip()


def _field(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AnswerError("not_text")
    if len(value) > MAX_CHARS[key]:
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
