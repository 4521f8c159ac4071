"""How full a stage keeps a language model's server: the share of its slots that are at work.

    python -m benchmarks.server_use                       # seconds; no model and no server
    python -m benchmarks.server_use --spread 0.7 --retries 0.1 --rows 1024

The real instruct stage asks a simulated server with a simulated clock: times of replies are lognormal, and
some replies are no usable answer, so that the row is asked again. "In rounds" is how the stage worked before:
a batch at a time, and within a batch one attempt at a time. "Streamed" is the stage itself: one stream over a
part. Use is the time that slots were busy, divided by slots and time.
"""

import argparse
import heapq
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from stages.instruct.stage import Instruct, InstructConfig
from stages.models.chat.conversation import Question, Reply
from stages.models.chat.line import Line
from stages.tasks import load_tasks

PROMPTS = Path(__file__).parents[1] / "prompts"
CAPTION = "a red barn on a hill"
ANSWER = json.dumps(
    {
        "edit": "paint the barn blue",
        "edited_object": "a blue barn",
        "output_caption": "a blue barn on a hill",
        "original_object": "a red barn",
    }
)
SETTINGS = [(64, 128), (128, 256)]
"""Slots, and rows per batch."""


class SimulatedServer:
    """A server that answers at once, and counts how long that would have taken.

    Args:
        slots: questions that it works on at once.
        spread: standard deviation of the logarithm of a reply's time; the median is 1 s.
        retries: share of the replies that are no usable answer.
        seed: of times and replies.
    """

    streams = True

    def __init__(self, slots: int, spread: float, retries: float, seed: int = 0) -> None:
        self.slots, self._spread, self._retries = slots, spread, retries
        self._rng = random.Random(seed)
        self._running: list[tuple[float, int]] = []
        self.now = self.busy = 0.0
        self.most = 0

    @property
    def use(self) -> float:
        """Share of the slots' time so far in which they were busy."""
        return self.busy / (self.slots * self.now)

    @contextmanager
    def opened(self) -> Iterator[Line]:
        yield self

    def identity(self, question: Question) -> None:
        return None

    def put(self, number: int, question: Question) -> None:
        seconds = self._rng.lognormvariate(0, self._spread)
        heapq.heappush(self._running, (self.now + seconds, number))
        self.busy += seconds
        self.most = max(self.most, len(self._running))

    def wait(self) -> Sequence[tuple[int, Reply | Exception]]:
        self.now, number = heapq.heappop(self._running)
        return [(number, Reply("no" if self._rng.random() < self._retries else ANSWER))]


def in_rounds(server: SimulatedServer, rows: int, batch: int, attempts: int) -> None:
    """Ask as the stage did before: the next batch, and the next attempt, when the last reply is there."""
    question = Question([], 0, {})
    for first in range(0, rows, batch):
        waiting = min(batch, rows - first)
        for _ in range(attempts):
            started = answered = unusable = 0
            while answered < waiting:
                while started < waiting and started - answered < server.slots:
                    server.put(started, question)
                    started += 1
                [(_, reply)] = server.wait()
                answered += 1
                unusable += isinstance(reply, Reply) and reply.text != ANSWER
            waiting = unusable


def streamed(server: SimulatedServer, rows: int, part: int, batch: int, attempts: int) -> int:
    """Ask by the instruct stage, part by part. Returns how many rows were decided."""
    config = InstructConfig(model="simulated", batch=batch, attempts=attempts)
    stage = Instruct(config, load_tasks(PROMPTS, names=["color"]), server)
    decided = 0
    for first in range(0, rows, part):
        numbers = range(first, min(first + part, rows))
        batches = (given(numbers[start : start + batch]) for start in range(0, len(numbers), batch))
        records = stage.stream(batches)
        assert records is not None
        decided += sum(table.num_rows for table in records)
    return decided


def given(numbers: Sequence[int]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": str(n), "caption": CAPTION, "task": "color", "seed": n} for n in numbers]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--parts", type=int, nargs="+", default=[128, 256, 1024, 4096], help="rows per part")
    parser.add_argument("--spread", type=float, default=0.35, help="of the logarithm of a reply's time")
    parser.add_argument("--retries", type=float, default=0.05, help="share of unusable replies")
    parser.add_argument("--attempts", type=int, default=3)
    options = parser.parse_args()
    table = Table("slots", "rows a batch", "in rounds", *(f"streamed, parts of {n}" for n in options.parts))
    for slots, batch in SETTINGS:
        before = SimulatedServer(slots, options.spread, options.retries)
        in_rounds(before, options.rows, batch, options.attempts)
        uses = []
        for part in options.parts:
            server = SimulatedServer(slots, options.spread, options.retries)
            assert streamed(server, options.rows, part, batch, options.attempts) == options.rows
            uses.append(server.use)
        table.add_row(*(f"{n}" for n in (slots, batch)), *(f"{use:.2f}" for use in [before.use, *uses]))
    console = Console()
    console.print(table)
    console.print(
        f"simulated clock: {options.rows} rows, {options.retries:.0%} of the replies unusable, times "
        f"lognormal with a spread of {options.spread:g}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
