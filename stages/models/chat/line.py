"""A chat model as stages use it: questions are put on a line, and replies come in any order.

A server, or an engine with continuous batching, answers a question while others wait for theirs
(``streams``). Any other model in process answers a batch of questions at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from stages.models.chat.conversation import Message, Question, Reply


class Line(Protocol):
    """An open connection to a model."""

    @property
    def slots(self) -> int:
        """Most questions that may wait for a reply at once."""
        ...

    def put(self, number: int, question: Question) -> None:
        """Ask a question, under a number that no waiting question has. At most ``slots`` may wait."""
        ...

    def wait(self) -> Sequence[tuple[int, Reply | Exception]]:
        """Wait until a question has its reply, or its error. Returns the numbers of all that have one now."""
        ...


class ChatModel(Protocol):
    """A language model, in process or behind an endpoint.

    The reply to a question depends on that question only.
    """

    streams: bool
    """Whether a question is answered while others wait, so that rows of several batches may be mixed."""

    def opened(self) -> AbstractContextManager[Line]:
        """A line to the model. Questions that are not answered when it is closed are given up."""
        ...

    def identity(self, question: Question) -> str | None:
        """A digest of everything that determines the reply. None: a reply is not worth keeping."""
        ...


class BatchModel(ABC):
    """A model in process that answers a batch at once."""

    streams = False
    batch: int
    """Questions per call of ``complete``."""

    @abstractmethod
    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> Sequence[Reply | Exception]:
        """The reply to each conversation, or the error."""

    def identity(self, question: Question) -> str | None:
        return None  # it costs nothing but time, and is drawn again to the bit

    @contextmanager
    def opened(self) -> Iterator[Line]:
        yield _Batch(self)


class _Batch:
    """The questions of the next call."""

    def __init__(self, model: BatchModel) -> None:
        self._model = model
        self._waiting: dict[int, Question] = {}

    @property
    def slots(self) -> int:
        return self._model.batch

    def put(self, number: int, question: Question) -> None:
        self._waiting[number] = question

    def wait(self) -> Sequence[tuple[int, Reply | Exception]]:
        asked, self._waiting = self._waiting, {}
        replies = self._model.complete(
            [question.messages for question in asked.values()], [question.seed for question in asked.values()]
        )
        return list(zip(asked, replies, strict=True))
