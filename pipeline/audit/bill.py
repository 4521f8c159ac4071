"""The bill of a run: disk space, hours, GPU-hours and money; measured on a pilot, or counted before one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.engine.disk import DiskUse, counted, free_bytes, measured, shortage
from pipeline.engine.expected import expected_rows, judged
from pipeline.engine.ledger import StageCount, count_run
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.fingerprint import fingerprint
from pipeline.manifest.manifest import Manifest, tasks_of
from pipeline.manifest.steps import build_steps
from pipeline.shown import DataTable, plain_table, size_shown
from pipeline.store import events
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location, reached
from pipeline.store.plan import read_plan
from pipeline.views.cost import measure
from stages.base import Resources
from stages.placed import Chain


@dataclass(frozen=True)
class Asked:
    """What the user wants to know the price of."""

    pairs: int = 1_000_000
    price: float | None = None
    """Money for a GPU-hour."""


@dataclass(frozen=True)
class RemainingWork:
    """Estimated remaining work of a stage."""

    stage: str
    rows: float
    """Rows still to come, estimated from the shares that earlier stages have kept so far."""
    seconds_a_row: float
    """Worker seconds per row, including the worker's start."""
    resources: Resources

    @property
    def hours(self) -> float:
        """Wall-clock hours with the number of workers in the manifest."""
        return self.rows * self.seconds_a_row / self.resources.workers / 3600

    @property
    def gpu_hours(self) -> float:
        return self.rows * self.seconds_a_row * self.resources.gpus / 3600


def print_bill(
    manifest: Manifest,
    stages: Chain,
    identities: Mapping[str, Mapping[str, Any]],
    planned: int,
    asked: Asked,
    console: Console,
) -> None:
    """Print disk space, remaining work and the cost of kept pairs.

    Args:
        manifest, stages: the run.
        identities: of the stages, by step.
        planned: the most edits that the captions give; for a run without a plan.
        asked: the pairs, and the price of a GPU-hour.
        console: where to print.
    """
    configs = manifest.configs(stages)
    try:
        state = _state_of(manifest, stages, identities)
    except UserError as error:
        console.print(Text(f"Cost: not known: {error}"))
        return
    uses = [] if state is None else measured(state)
    if state is None or not uses:
        found = counted(stages, configs, tasks_of(manifest), planned)
        _print_disk(found or [], manifest.folder, True, console)
        console.print(
            "Cost: not known before a pilot. Make one with generate --wave 1, then check again.",
            soft_wrap=True,
        )
        return
    _print_disk(uses, manifest.folder, False, console)
    counts = count_run(state)
    expected = expected_rows(state, counts)
    resources = {name: config.resources for name, config in configs.items()}
    work = estimate(state.folder, counts, expected, resources)
    console.print(_remaining_table(work))
    if asked.price is not None:
        money = sum(each.gpu_hours for each in work) * asked.price
        console.print(f"The rest of this run: {money:,.2f} at {asked.price:g} a GPU-hour.", highlight=False)
    unknown = [count.name for count in counts if count.name not in expected]
    if unknown:
        console.print(f"Nothing is known yet of {', '.join(unknown)}: generate --wave 1 measures them.")
        return
    pairs = sum(
        expected[count.name] * count.kept.total() / max(1, judged(count))
        for count in counts
        if state.steps[count.name].publishes
    )
    console.print(f"About {pairs:.0f} pairs of {state.plan.rows} planned edits.", highlight=False)
    share = pairs / max(1, state.plan.rows)
    whole = sum(use.whole for use in uses) / max(1, state.plan.rows)
    console.print(_pairs_line(state, share, whole, asked), highlight=False, soft_wrap=True)


def _state_of(
    manifest: Manifest, stages: Chain, identities: Mapping[str, Mapping[str, Any]]
) -> RunState | None:
    """The run so far, as these settings see it; None before its plan is made.

    Raises:
        UserError: the run cannot be reached, or its plan is damaged.
    """
    folder = RunFolder(manifest.folder)
    with reached(folder.root):
        plan = read_plan(folder.plan)
    if plan is None:
        return None
    fingerprints = {name: fingerprint(identity) for name, identity in identities.items()}
    state = RunState(folder, plan, build_steps(stages, manifest.configs(stages), fingerprints))
    state.scan()
    return state


def _print_disk(uses: Sequence[DiskUse], folder: Location, at_most: bool, console: Console) -> None:
    """A table of disk space by stage, and whether it is there."""
    free = free_bytes(folder)
    room = "an object store has no limit" if free is None else f"{size_shown(free)} are free at {folder}"
    if not uses:
        told = "set diffusion.height and width, or download the model first"
        console.print(f"Disk: the size of the pictures is not known here ({told}); {room}.", soft_wrap=True)
        return
    how = (
        "at most, counted from the size of uncompressed pictures" if at_most else "measured on finished parts"
    )
    console.print(f"Disk of this run, {how}:")
    table = plain_table("stage", "rows", "a row", "all")
    for use in uses:
        table.add_row(use.step, f"{use.rows:.0f}", size_shown(use.bytes_a_row), size_shown(use.whole))
    whole, needed = sum(use.whole for use in uses), sum(use.to_come() for use in uses)
    table.add_row("all", "", "", size_shown(whole), style="bold")
    console.print(table)
    if short := shortage(needed, folder, at_most):
        console.print(Text(short, "bold red"), soft_wrap=True)
    else:
        console.print(Text(f"{size_shown(needed)} still to be written; {room}."), soft_wrap=True)


def _pairs_line(state: RunState, share: float, bytes_an_edit: float, asked: Asked) -> str:
    """What the asked number of kept pairs costs, at the shares and seconds measured so far."""
    cost = measure(state)
    if not cost.pairs or not share:
        return "No pair is kept yet, so the cost of kept pairs is not known."
    edits = asked.pairs / share
    told = [f"{edits:,.0f} planned edits ({share:.1%} kept)", f"{size_shown(edits * bytes_an_edit)} of disk"]
    hours = cost.gpu_hours(asked.pairs)
    told.append(f"{hours:,.1f} GPU-hours" if hours else "no GPU-hours: no stage has a GPU")
    if asked.price is not None:
        told.append(f"{hours * asked.price:,.2f} at {asked.price:g} a GPU-hour")
    return f"{asked.pairs:,} kept pairs: about {', '.join(told)}."


def estimate(
    folder: RunFolder,
    counts: Sequence[StageCount],
    expected: Mapping[str, float],
    resources: Mapping[str, Resources],
) -> list[RemainingWork]:
    """Estimate the remaining work of each stage from its work so far.

    Stages without measurements are left out.
    """
    spent = events.spent(folder.events)
    return [
        RemainingWork(
            count.name,
            max(0.0, expected[count.name] - judged(count)),
            spent[count.name].worker_seconds / spent[count.name].rows,
            resources[count.name],
        )
        for count in counts
        if count.name in expected and spent[count.name].rows
    ]


def _remaining_table(stages: Sequence[RemainingWork]) -> DataTable:
    table = plain_table("stage", "rows to come", "s a row", "workers", "hours", "GPU-hours")
    for work in stages:
        table.add_row(
            work.stage,
            f"{work.rows:.0f}",
            f"{work.seconds_a_row:.3f}",
            str(work.resources.workers),
            f"{work.hours:.2f}",
            f"{work.gpu_hours:.2f}",
        )
    hours, gpu_hours = sum(work.hours for work in stages), sum(work.gpu_hours for work in stages)
    table.add_row("all", "", "", "", f"{hours:.2f}", f"{gpu_hours:.2f}", style="bold")
    return table
