"""A caption that a chat model writes: the form of its answer, and what an answer must be."""

from typing import Any

from stages.instruct.answer import MAX_CHARS, check_instruction, text_field
from stages.models.chat.last_object import AnswerError, last_object
from stages.words import words_of

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "short_caption",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"caption": {"type": "string"}},
            "required": ["caption"],
            "additionalProperties": False,
        },
    },
}
"""``response_format``: exactly one text."""


def caption_in(reply: str) -> str:
    """The caption in a reply, normalised. It has at least one word.

    Raises:
        AnswerError: caption_empty, instruction_is_talk, and those of the JSON and its text
            (:mod:`stages.instruct.answer`).
    """
    caption = text_field(last_object(reply, "caption"), "caption", MAX_CHARS["output_caption"])
    if not words_of(caption):
        raise AnswerError("caption_empty")
    check_instruction(caption)
    return caption
