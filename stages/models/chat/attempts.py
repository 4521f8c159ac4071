"""Asking a model until its answer is usable: the retry policy of all stages that ask one.

A request that failed is not asked again here: the client has retried it already. A reply that is no usable
answer is asked again with another seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stages.models.chat.conversation import ChatModel, Message, Reply, Usage
from stages.models.chat.last_object import AnswerError

_MAX_REPLY_CHARS = 20_000
"""Characters kept of a reply, counted from its end: thoughts come first."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Question = tuple[list[Message], int]
"""A conversation, and the seed of its reply."""


@dataclass(frozen=True)
class Asked(Generic[Answer]):
    """The result of asking about one item. Exactly one of ``answer``, ``reason`` and ``error`` is set."""

    attempts: int
    reply: str
    """The end of the last reply; empty if the last request failed."""
    usage: Usage
    """The tokens of all replies, also of unusable ones: they are paid for."""
    answer: Answer | None = None
    reason: str = ""
    """Why the last reply is unusable: ``answer_`` and a short name."""
    error: Exception | None = None


def ask(
    chat: ChatModel,
    items: Sequence[Item],
    question: Callable[[Item, int], Question],
    read: Callable[[Item, str], Answer],
    attempts: int,
    section: str,
) -> list[Asked[Answer]]:
    """Ask about each item, at most ``attempts`` times.

    Args:
        question: the question about an item in an attempt, counted from 1.
        read: the answer in a reply's text; raises AnswerError if there is none.
        section: the manifest's section of the model, for the reasons.
    """
    asked: list[Asked[Answer] | None] = [None] * len(items)
    waiting = list(range(len(items)))
    for attempt in range(1, attempts + 1):
        if not waiting:
            break
        questions = [question(items[index], attempt) for index in waiting]
        replies = chat.complete([messages for messages, _ in questions], [seed for _, seed in questions])
        for index, reply in zip(waiting, replies, strict=True):
            before = asked[index]
            usage = before.usage if before else Usage()
            asked[index] = _read(reply, lambda text: read(items[index], text), attempt, usage, section)  # noqa: B023
        waiting = [index for index in waiting if (last := asked[index]) and last.reason]
    return [each for each in asked if each is not None]


def _read(
    reply: Reply | Exception, read: Callable[[str], Answer], attempt: int, before: Usage, section: str
) -> Asked[Answer]:
    if isinstance(reply, Exception):
        return Asked(attempt, "", before, error=reply)
    text, usage = reply.text[-_MAX_REPLY_CHARS:].encode(errors="replace").decode(), before + reply.usage
    if reply.ending != "stop":  # such a reply is never used
        hint = f": raise {section}.max_new_tokens" if reply.ending == "truncated" else ""
        return Asked(attempt, text, usage, reason=f"answer_{reply.ending}{hint}")
    try:
        return Asked(attempt, text, usage, answer=read(reply.text))
    except AnswerError as error:
        return Asked(attempt, text, usage, reason=f"answer_{error}")
