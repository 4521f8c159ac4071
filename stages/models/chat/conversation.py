"""Conversations with a language model: messages, replies, and how a reply ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
"""One turn with ``role`` (system, user, assistant) and ``content``: a text, or a list of texts (str) and
:class:`Picture` for a model that sees."""

Ending = Literal["stop", "truncated", "content_filter", "refused"]
"""``truncated``: the reply reached its length limit. ``refused``: the model declined to answer."""


_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>[]\u2028\u2029"}


def quoted(texts: Mapping[str, str]) -> str:
    """Untrusted texts as data in a message: JSON with the brackets of chat markup and special tokens escaped.

    No text can end its quotation or the turn.
    """
    return json.dumps(texts, ensure_ascii=False).translate(_ESCAPED)


@dataclass(frozen=True)
class Picture:
    """A picture within a message."""

    png: bytes


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply or of several. None: the server has not told them."""

    prompt_tokens: int | None = None
    answer_tokens: int | None = None

    @property
    def counted(self) -> dict[str, int]:
        """The numbers that are known, by name."""
        return {name: count for name, count in vars(self).items() if count is not None}

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            _sum(self.prompt_tokens, other.prompt_tokens), _sum(self.answer_tokens, other.answer_tokens)
        )


def _sum(first: int | None, second: int | None) -> int | None:
    return first if second is None else second if first is None else first + second


@dataclass(frozen=True)
class Reply:
    """A reply of the model. ``text`` can be empty; for a refusal it is the refusal's wording."""

    text: str
    ending: Ending = "stop"
    usage: Usage = field(default=Usage(), compare=False)


@dataclass(frozen=True)
class Question:
    """A conversation that wants a reply."""

    messages: list[Message]
    seed: int
    """The seed of the reply."""
    form: Mapping[str, Any]
    """The required form of the reply: a JSON schema as a ``response_format`` of OpenAI's protocol."""
