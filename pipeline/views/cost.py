"""``editpairs cost``: the measured cost of a run's pairs, and a projection, such as for a million pairs.

A worker's seconds include its start and loading its models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.engine.ledger import count_run, published
from pipeline.engine.state import RunState
from pipeline.shown import DataTable, plain_table
from pipeline.store import events
from pipeline.store.events import Spent
from pipeline.views.rounds import RoundCount, count_rounds


@dataclass(frozen=True)
class Cost:
    pairs: int
    stages: Mapping[str, Spent]
    rounds: Sequence[RoundCount] = ()
    """The rounds; empty for a run of one round."""

    @property
    def total(self) -> Spent:
        return sum(self.stages.values(), Spent())

    def gpu_hours(self, pairs: int) -> float:
        """GPU-hours of so many kept pairs."""
        return pairs * self.total.gpu_seconds / self.pairs / 3600


def measure(state: RunState) -> Cost:
    """The cost of the run so far, over all its sessions."""
    spent, counts = events.spent(state.folder.events), count_run(state)
    stages = {name: spent[name] for name in state.steps}
    return Cost(published(state, counts), stages, count_rounds(state, counts, spent))


def token_lines(cost: Cost, pairs: int) -> Iterator[str]:
    """A line per stage whose model counts its tokens."""
    for stage, spent in cost.stages.items():
        told = {"prompt": spent.prompt_tokens, "answer": spent.answer_tokens}
        if any(told.values()):
            each = " and ".join(f"{count / cost.pairs:,.0f} {kind}" for kind, count in told.items())
            all_of = " and ".join(f"{pairs * count / cost.pairs / 1e6:,.1f}" for count in told.values())
            yield f"{stage}: {each} tokens a kept pair; {all_of} million for {pairs:,} pairs"


def cost_table(cost: Cost, pairs: int) -> DataTable:
    """A table: each stage's time, the time per kept pair, and the time for ``pairs`` kept pairs."""
    names = ("stage", "rows", "worker s", "CPU-s", "GPU-s", "CPU-s a pair", "GPU-s a pair")
    table = plain_table(*names, f"hours of {pairs:,} pairs")
    for stage, spent in [*cost.stages.items(), ("all", cost.total)]:
        cpu, gpu = spent.cpu_seconds / cost.pairs, spent.gpu_seconds / cost.pairs
        hours = f"{pairs * gpu / 3600:,.0f} GPU-h" if gpu else f"{pairs * cpu / 3600:,.0f} CPU-h"
        rows = "" if stage == "all" else str(spent.rows)
        table.add_row(
            stage, rows, f"{spent.worker_seconds:.1f}", f"{spent.cpu_seconds:.1f}",
            f"{spent.gpu_seconds:.1f}", f"{cpu:.3f}", f"{gpu:.3f}", hours,
            style="bold" if stage == "all" else None,
        )  # fmt: skip
    return table
