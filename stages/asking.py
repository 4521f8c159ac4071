"""Stages that ask a chat model about their rows.

A model that answers one question while others wait is asked about all rows as one stream: a new row starts
whenever a slot is free, so that no row waits for the slowest of its batch.
"""

import json
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from stages.base import Answers, ConfigT, Decision, Stage, to_table
from stages.models.chat.attempts import Talk, converse
from stages.models.chat.conversation import Reply
from stages.models.chat.line import BatchModel, ChatModel

Decide: TypeAlias = Callable[[Sequence[Any]], Decision]
"""Decides about a row by the results of its talks."""


class Asking(Stage[ConfigT]):
    """A stage whose rows are decided by talks with ``self.chat``, which the subclass sets."""

    chat: ChatModel

    @abstractmethod
    def _talks(self, row: Mapping[str, Any]) -> tuple[Sequence[Talk[Any]], Decide]:
        """The talks about a row, and what is decided by their results. No talks: it is decided at once."""

    def resize(self, batch: int) -> None:
        super().resize(batch)
        if isinstance(self.chat, BatchModel):
            self.chat.batch = batch

    def __call__(self, rows: pa.Table) -> pa.Table:
        with closing(self._streamed(iter([rows]))) as records:
            return next(records)

    def stream(self, batches: Iterator[pa.Table]) -> Generator[pa.Table, None, None] | None:
        return self._streamed(batches) if self.chat.streams else None

    def _streamed(self, batches: Iterator[pa.Table]) -> Generator[pa.Table, None, None]:
        """The records of each batch, in order, once all its rows are decided.

        Rows are read as slots become free. In memory are the rows that wait for replies, the rest of their
        last batch, and the decisions that a slower row holds up.
        """
        waiting: deque[_Batch] = deque()

        def talks() -> Iterator[tuple[tuple[_Row, int | None], Talk[Any]]]:
            for rows in batches:
                answers = self.answers
                batch = _Batch(rows["id"].to_pylist())
                waiting.append(batch)
                for place, row in enumerate(rows.to_pylist()):
                    about, decide = self._talks(row)
                    pending = _Row(batch, place, decide, [None] * len(about), len(about))
                    if not about:
                        yield (pending, None), _silence()
                    for index, talk in enumerate(about):
                        kept = talk if answers is None else _remembered(talk, self.chat, answers)
                        yield (pending, index), kept

        with self.chat.opened() as line:
            for (row, index), result in converse(line, talks()):
                if index is not None:
                    row.results[index] = result
                    row.open -= 1
                row.settle()
                while waiting and not waiting[0].open:
                    yield waiting.popleft().records(self.schema)
            while waiting:
                yield waiting.popleft().records(self.schema)


class _Batch:
    """A batch of rows, of which some are not decided."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids, self.open = ids, len(ids)
        self._decisions: list[Decision] = [Decision("", "")] * len(ids)

    def decide(self, place: int, decision: Decision) -> None:
        self._decisions[place] = decision
        self.open -= 1

    def records(self, schema: pa.Schema) -> pa.Table:
        return to_table(self._ids, self._decisions, schema)


@dataclass(eq=False)
class _Row:
    """A row under discussion."""

    batch: _Batch
    place: int
    decide: Decide
    results: list[Any]
    open: int
    """Number of talks that have not ended."""

    def settle(self) -> None:
        """Decide about the row if all its talks have ended."""
        if not self.open:
            self.batch.decide(self.place, self.decide(self.results))


def _silence() -> Talk[None]:
    """A talk without a question."""
    return
    yield


def _remembered(talk: Talk[Any], chat: ChatModel, answers: Answers) -> Talk[Any]:
    """A talk that takes a reply from ``answers`` if it is there, and otherwise keeps it there.

    A reply that was kept has no ``usage``: its tokens were counted when it came.
    """
    question = next(talk)
    while True:
        key = chat.identity(question)
        kept = None if key is None else answers.get(key)
        reply = (yield question) if kept is None else Reply(**json.loads(kept))
        if key is not None and kept is None and isinstance(reply, Reply):
            answers.put(key, json.dumps({"text": reply.text, "ending": reply.ending}))
        try:
            question = talk.send(reply)
        except StopIteration as end:
            return end.value
