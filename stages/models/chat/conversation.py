"""Conversations with a language model: what is said, what it replied, and how its reply ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Message = dict[str, str]
"""One turn: its ``role`` (system, user, assistant) and its ``content``."""

Ending = Literal["stop", "truncated", "content_filter", "refused"]
"""``truncated``: the reply was longer than it was allowed to be. ``refused``: the model said that it will not
answer."""


@dataclass(frozen=True)
class Reply:
    """A turn of the model; ``text`` may be empty, and holds the words of a refusal."""

    text: str
    ending: Ending = "stop"


class ChatModel(Protocol):
    """What is needed of a language model, in process or behind an endpoint."""

    batch: int
    """Conversations at a time, in process; a server has batches of its own."""

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> Sequence[Reply | Exception]:
        """The next turn of each conversation, or why there is none; conversation i draws from
        ``seeds[i]`` alone."""
        ...
