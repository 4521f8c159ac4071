"""The judge's answers, parsed as data: marks, and another instruction."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.instruct.answer import MAX_CHARS, check_instruction, text_field
from stages.judge.prompt import MARKS
from stages.models.chat.last_object import AnswerError, last_object
from stages.words import normalised, words_of

MAX_REASON_CHARS = 1000
"""Characters kept of a reason."""


@dataclass(frozen=True)
class Marks:
    """Marks from 1 to 5 by metric, and the judge's reason for them."""

    scores: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Caption:
    """Another instruction for a pair, and the caption of its target."""

    instruction: str
    output_caption: str


def parse_marks(text: str, keys: Iterable[str] = MARKS) -> Marks:
    """Read the last JSON object in ``text`` that has the marks ``keys``.

    Raises:
        AnswerError: empty, not_json, missing_field, not_a_mark (no number from 1 to 5).
    """
    keys = list(keys)
    content = last_object(text, keys[0], lambda content: all(key in content for key in keys))
    return Marks({MARKS[key]: _mark(content, key) for key in keys}, _reason(content))


def parse_caption(text: str) -> Caption | None:
    """Read another instruction; None if the judge has none.

    Raises:
        AnswerError: empty, not_json, missing_field, not_text, too_long, control_characters, markup.
    """
    content = last_object(text, "instruction", lambda content: "output_caption" in content)
    instruction = text_field(content, "instruction", MAX_CHARS["edit"])
    output_caption = text_field(content, "output_caption", MAX_CHARS["output_caption"])
    return Caption(instruction, output_caption) if words_of(instruction) else None


def check_caption(caption: Caption, asked: str, input_caption: str) -> None:
    """Check another instruction against the instruction that was asked.

    Raises:
        AnswerError: instruction_unchanged, instruction_is_caption, instruction_is_talk, output_caption_empty.
    """
    if words_of(caption.instruction) == words_of(asked):
        raise AnswerError("instruction_unchanged")
    if not words_of(caption.output_caption):
        raise AnswerError("output_caption_empty")
    check_instruction(caption.instruction, input_caption, caption.output_caption)


def _mark(content: Mapping[str, Any], key: str) -> float:
    if key not in content:
        raise AnswerError("missing_field")
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 5:
        raise AnswerError("not_a_mark")
    return float(value)


def _reason(content: Mapping[str, Any]) -> str:
    reason = content.get("reason")
    return normalised(reason[: 2 * MAX_REASON_CHARS])[:MAX_REASON_CHARS] if isinstance(reason, str) else ""
