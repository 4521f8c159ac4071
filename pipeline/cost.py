"""``editpairs cost``: what a run's pairs took, and what a million would take, from what was measured.

A worker's seconds are those it spent on files, its start and its models' loading among them. A stage's
GPU-seconds are its workers' seconds times the GPUs that each of them had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from pipeline.folder import Spent
from pipeline.ledger import count_run, published
from pipeline.lockfile import read_lock
from pipeline.report import plain_table
from pipeline.state import RunState


@dataclass(frozen=True)
class StageCost:
    stage: str
    spent: Spent
    gpus: float
    """A worker."""

    @property
    def gpu_seconds(self) -> float:
        return self.spent.worker_seconds * self.gpus


@dataclass(frozen=True)
class Cost:
    pairs: int
    stages: Sequence[StageCost]

    @property
    def wall_seconds(self) -> float:
        return sum(stage.spent.wall_seconds for stage in self.stages)

    @property
    def gpu_seconds(self) -> float:
        return sum(stage.gpu_seconds for stage in self.stages)

    @property
    def worker_seconds(self) -> float:
        return sum(stage.spent.worker_seconds for stage in self.stages)


def measure(state: RunState) -> Cost:
    """What the run has cost so far, over all its sessions."""
    spent = state.folder.spent()
    manifest: Mapping[str, Any] = read_lock(state.folder.lock)["manifest"]
    gpus = {name: manifest[name.partition(".")[0]]["resources"]["gpus"] for name in state.steps}
    stages = [StageCost(name, spent[name], gpus[name]) for name in state.steps]
    return Cost(published(state, count_run(state)), stages)


def table_of(cost: Cost, pairs: int) -> Table:
    """What each stage took, a kept pair's share of it, and what ``pairs`` kept pairs would take."""
    names = ("stage", "rows", "worker s", "GPU-s", "worker s a pair", "GPU-s a pair")
    table = plain_table(*names, f"hours of {pairs:,} pairs")
    lines = [(s.stage, str(s.spent.rows), s.spent.worker_seconds, s.gpu_seconds) for s in cost.stages]
    lines.append(("all", "", cost.worker_seconds, cost.gpu_seconds))
    for stage, rows, worker, gpu in lines:
        each, gpu_each = worker / cost.pairs, gpu / cost.pairs
        hours = f"{pairs * gpu_each / 3600:,.0f} GPU-h" if gpu else f"{pairs * each / 3600:,.0f} CPU-h"
        table.add_row(
            stage, rows, f"{worker:.1f}", f"{gpu:.1f}", f"{each:.3f}", f"{gpu_each:.3f}", hours,
            style="bold" if stage == "all" else None,
        )  # fmt: skip
    return table
