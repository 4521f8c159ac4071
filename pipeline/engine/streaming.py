"""Running the batches of a part as one stream, for stages that wait for a server (``Stage.stream``).

If a row raises, the stream ends there. The next batch runs alone, row by row if need be, and a new stream
begins behind it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
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

    def stream(self, batches: Iterator[pa.Table]) -> Iterator[Made]:
        """Run batches, and yield the result of each in order.

        Raises:
            BrokenStreamError: a row raised. The batches that have no result are to be run again.
        """
        ...


def in_batches(make: Maker, read: Callable[[], Iterator[pa.Table]]) -> Generator[Made, None, None]:
    """Run batches, and yield the result of each in order.

    Args:
        make: the stage.
        read: the batches, the same ones whenever they are read.
    """
    done = 0
    while True:
        try:
            for made in make.stream(islice(read(), done, None)):
                done += 1
                yield made
            return
        except BrokenStreamError:
            rows = next(islice(read(), done, None))
        yield make(rows)
        done += 1


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
