"""Running the batches of parts, for stages that wait for a server as one stream (``Stage.stream``).

Such a stream goes on from one part to the next: rows of the next part start while the last ones of this part
are waited for. If a row raises, the stream ends there. The next batch runs alone, row by row if need be, and
a new stream begins behind it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

import pyarrow as pa

Made: TypeAlias = tuple[pa.Table, list[BaseException]]
"""Records, and the exceptions raised while making them."""


class BrokenStreamError(Exception):
    """A row of a stream raised."""


class Maker(Protocol):
    """A loaded stage."""

    def __call__(self, rows: pa.Table) -> Made:
        """Run a batch; an error of a row costs this row."""
        ...

    def stream(self, batches: Iterator[pa.Table]) -> Generator[Made, None, None]:
        """Run batches, and yield the result of each in order.

        Raises:
            BrokenStreamError: a row raised. The batches that have no result are to be run again.
        """
        ...


class Flow:
    """The stream of a worker.

    Args:
        make: the stage.
        read: the batches of a part, the same ones whenever they are read.
    """

    def __init__(self, make: Maker, read: Callable[[int], Iterator[pa.Table]]) -> None:
        self._make, self._read = make, read
        self._made: Generator[Made, None, None] | None = None
        self._parts: deque[int] = deque()
        """The parts of the stream that are not finished, in order."""
        self._unread: deque[tuple[int, int]] = deque()
        """Those of which no row is read, each with the number of batches to leave out."""
        self._at_end = False

    def run(self, part: int, count: int, ahead: Sequence[int] = ()) -> Generator[Made, None, None]:
        """The results of a part's batches, in order.

        Args:
            part: the part.
            count: the number of its batches.
            ahead: parts that are probably run next. Where others are, what was begun of these is lost.
        """
        done = 0
        try:
            while done < count:
                self._begin(part, done, ahead)
                assert self._made is not None
                try:
                    for made in islice(self._made, count - done):
                        done += 1
                        yield made
                except BrokenStreamError:
                    self.close()
                    yield self._make(next(islice(self._read(part), done, None)))
                    done += 1
        except BaseException:
            self.close()
            raise
        if self._parts and self._parts[0] == part:
            self._parts.popleft()
        if not self._parts:
            self.close()

    def close(self) -> None:
        """Give up what was begun."""
        made, self._made = self._made, None
        self._parts.clear()
        self._unread.clear()
        if made is not None:
            made.close()

    def _begin(self, part: int, done: int, ahead: Sequence[int]) -> None:
        if self._made is None or not self._parts or self._parts[0] != part:
            self.close()
            self._at_end = False
            self._add(part, done)
            self._made = self._make.stream(self._batches())
        if not self._at_end:
            for other in ahead:
                if other not in self._parts:
                    self._add(other, 0)

    def _add(self, part: int, done: int) -> None:
        self._parts.append(part)
        self._unread.append((part, done))

    def _batches(self) -> Iterator[pa.Table]:
        while self._unread:
            part, done = self._unread.popleft()
            yield from islice(self._read(part), done, None)
        self._at_end = True


class Given:
    """Batches on their way into a stream. An error of reading them is told from one of the stage."""

    def __init__(self, batches: Iterator[pa.Table]) -> None:
        self._batches = batches
        self.waiting: deque[list[str]] = deque()
        """The ids of each batch that has no records yet."""
        self.error: BaseException | None = None
        """Raised while a batch was read."""

    def __iter__(self) -> "Given":
        return self

    def __next__(self) -> pa.Table:
        try:
            rows = next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        self.waiting.append(rows["id"].to_pylist())
        return rows
