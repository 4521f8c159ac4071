"""How full a stage keeps a language model's server: the share of its slots that are at work.

    python -m benchmarks.server_use                       # seconds; no model and no server
    python -m benchmarks.server_use --spread 0.7 --retries 0.1 --rows 1024

The real instruct stage asks a simulated server with a simulated clock: times of replies are lognormal, and
some replies are no usable answer, so that the row is asked again. "In rounds" is a small model of how the
stage worked before: a batch at a time, and within a batch one attempt at a time. "A stream a part" and
"streamed" are the stage itself under the engine's own stream, which ends with each part, or goes on to the
next parts as it does in a run. Use is the time that slots were busy, divided by slots and time.
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

from pipeline.engine.guarded import Guarded
from pipeline.engine.jobs import AHEAD
from pipeline.engine.streaming import Flow
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


def streamed(
    server: SimulatedServer, rows: int, part: int, batch: int, attempts: int, ahead: int = AHEAD
) -> int:
    """Ask by the instruct stage and the engine's stream, part by part. Returns how many rows were decided.

    Args:
        server: the server.
        rows, part, batch: rows in all, per part and per batch.
        attempts: most attempts per row.
        ahead: parts that the stream is told of before they are its turn.
    """
    config = InstructConfig(model="simulated", batch=batch, attempts=attempts)
    stage = Instruct(config, load_tasks(PROMPTS, names=["color"]), server)

    def read(number: int) -> Iterator[pa.Table]:
        first, last = number * part, min((number + 1) * part, rows)
        return (given(range(start, min(start + batch, last))) for start in range(first, last, batch))

    flow, parts, decided = Flow(Guarded("instruct", stage, batch), read), -(-rows // part), 0
    for number in range(parts):
        count = -(-min(part, rows - number * part) // batch)
        made = flow.run(number, count, range(number + 1, min(number + 1 + ahead, parts)))
        decided += sum(records.num_rows for records, _ in made)
    return decided


def given(numbers: Sequence[int]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": str(n), "caption": CAPTION, "task": "color", "seed": n} for n in numbers]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--parts", type=int, nargs="+", default=[128, 256, 1024], help="rows per part")
    parser.add_argument("--spread", type=float, default=0.35, help="of the logarithm of a reply's time")
    parser.add_argument("--retries", type=float, default=0.05, help="share of unusable replies")
    parser.add_argument("--attempts", type=int, default=3)
    options = parser.parse_args()
    table = Table("slots", "rows a batch", "rows a part", "in rounds", "a stream a part", "streamed")
    for slots, batch in SETTINGS:
        for part in options.parts:
            servers = [SimulatedServer(slots, options.spread, options.retries) for _ in range(3)]
            in_rounds(servers[0], options.rows, min(batch, part), options.attempts)
            for server, ahead in zip(servers[1:], (0, AHEAD), strict=True):
                decided = streamed(server, options.rows, part, batch, options.attempts, ahead)
                assert decided == options.rows
            table.add_row(f"{slots}", f"{batch}", f"{part}", *(f"{server.use:.2f}" for server in servers))
    console = Console()
    console.print(table)
    console.print(
        f"simulated clock: {options.rows} rows, {options.retries:.0%} of the replies unusable, times "
        f"lognormal with a spread of {options.spread:g}",
        highlight=False,
    )


if __name__ == "__main__":
    main()
