"""Talks with a chat model: asking until an answer is usable, and many talks on one line.

A request that failed is not asked again here: the client has retried it already. A reply that is no usable
answer is asked again at once with another seed, while other talks go on.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from stages.models.chat.conversation import Question, Reply, Usage
from stages.models.chat.last_object import AnswerError
from stages.models.chat.line import Line

_MAX_REPLY_CHARS = 20_000
"""Characters kept of a reply, counted from its end: thoughts come first."""

Answer = TypeVar("Answer")
Result = TypeVar("Result")
Key = TypeVar("Key")
Talk: TypeAlias = Generator[Question, Reply | Exception, Result]
"""Questions that depend on the replies before them; returns what was found out."""


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
    question: Callable[[int], Question], read: Callable[[str], Answer], attempts: int, section: str
) -> Talk[Asked[Answer]]:
    """Ask at most ``attempts`` times.

    Args:
        question: the question of an attempt, counted from 1.
        read: the answer in a reply's text; raises AnswerError if there is none.
        attempts: at least 1.
        section: the manifest's section of the model, for the reasons.
    """
    usage, attempt = Usage(), 1
    while True:
        reply = yield question(attempt)
        asked = _read(reply, read, attempt, usage, section)
        if not asked.reason or attempt == attempts:
            return asked
        usage, attempt = asked.usage, attempt + 1


def converse(line: Line, talks: Iterator[tuple[Key, Talk[Result]]]) -> Iterator[tuple[Key, Result]]:
    """Hold talks, and yield the result of each when it ends. A new one starts whenever a slot is free.

    Args:
        line: to the model.
        talks: with a key each; the next is taken when there is a slot for it.
    """
    open_talks: dict[int, tuple[Key, Talk[Result]]] = {}
    started, more = 0, True
    while True:
        while more and len(open_talks) < line.slots:
            found = next(talks, None)
            if found is None:
                more = False
                break
            key, talk = found
            try:
                line.put(started, next(talk))
            except StopIteration as end:  # it had nothing to ask
                yield key, end.value
                continue
            open_talks[started] = found
            started += 1
        if not open_talks:
            return
        for number, reply in line.wait():
            key, talk = open_talks[number]
            try:
                line.put(number, talk.send(reply))
            except StopIteration as end:
                del open_talks[number]
                yield key, end.value


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
