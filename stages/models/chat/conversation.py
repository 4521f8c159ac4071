"""Conversations with a language model: messages, replies, and how a reply ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Message = dict[str, str]
"""One turn with ``role`` (system, user, assistant) and ``content``."""

Ending = Literal["stop", "truncated", "content_filter", "refused"]
"""``truncated``: the reply reached its length limit. ``refused``: the model declined to answer."""


@dataclass(frozen=True)
class Reply:
    """A reply of the model. ``text`` can be empty; for a refusal it is the refusal's wording."""

    text: str
    ending: Ending = "stop"


class ChatModel(Protocol):
    """The interface of a language model, in process or behind an endpoint."""

    batch: int
    """Conversations per batch in process; a server batches by itself."""

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> Sequence[Reply | Exception]:
        """The reply to each conversation, or the error.

        The reply to conversation i depends on ``seeds[i]`` only.
        """
        ...
