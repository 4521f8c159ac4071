"""``editpairs check``: what is known of a run before it starts, and an estimate of the remaining cost.

It reads the manifest, the files named there, and the results of a pilot run (``--wave 1``).
:mod:`pipeline.engine.preflight` finds problems that would stop the run. No model is loaded and nothing is
written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.audit.memory import memory_table
from pipeline.engine.ledger import StageCount, count_run
from pipeline.engine.preflight import Machine, judged_by, problems
from pipeline.engine.ray_start import cluster_problems
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.inputs.captions import read_captions
from pipeline.manifest.fingerprint import check_made_for, fingerprint, identities_of, models_of
from pipeline.manifest.manifest import Manifest, tasks_of
from pipeline.manifest.steps import build_steps
from pipeline.shown import DataTable, plain_table
from pipeline.store import events
from pipeline.store.folder import RunFolder
from pipeline.store.location import reached
from pipeline.store.plan import read_plan
from stages.base import Resources
from stages.placed import Chain


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


def check(
    manifest: Manifest, stages: Chain, machine: Machine, console: Console, *, elsewhere: bool = False
) -> None:
    """Print the stages, their models and resources, and the estimated cost.

    ``elsewhere``: the run starts on another machine, so this one need not reach the Ray cluster.

    Raises:
        UserError: ``generate`` could not start. The message lists every reason, one per line.
    """
    found = problems(manifest, stages, judged_by(manifest, machine))
    if not elsewhere:
        found += cluster_problems(manifest.ray)
    captions = 0
    try:
        captions = len(read_captions(manifest.captions.location, manifest.captions.column))
    except UserError as error:
        found.insert(0, str(error))
    if found:
        raise UserError("\n".join(dict.fromkeys(found)))
    tasks = tasks_of(manifest)
    identities = identities_of(stages, manifest.configs(stages), tasks)
    check_made_for(manifest.configs(stages), identities)
    planned = captions * manifest.repeats if manifest.rows is None else manifest.rows
    console.print(Text.assemble((manifest.name, "bold"), f": {captions} captions, up to {planned} edits"))
    console.print(_model_table(identities))
    console.print("Memory of a worker by counting, without CUDA's own; the VAE decodes in chunks that fit:")
    console.print(memory_table(stages, manifest.configs(stages), tasks))
    _print_cost(manifest, stages, identities, console)


def _model_table(identities: Mapping[str, Mapping[str, Any]]) -> DataTable:
    """A table of models: manifest key, and hub name with revision or hash of the files."""
    table = DataTable("model", "identity", box=None, header_style="bold", pad_edge=False)
    for key, value in models_of(identities.values()).items():
        table.add_row(key, value)
    return table


def _print_cost(
    manifest: Manifest, stages: Chain, identities: Mapping[str, Mapping[str, Any]], console: Console
) -> None:
    folder = RunFolder(manifest.folder)
    try:
        with reached(folder.root):
            plan = read_plan(folder.plan)
    except UserError as error:
        console.print(f"Cost: not known: {error}", markup=False)
        return
    if plan is None:
        console.print("Cost: not known before a pilot. Run generate with --wave 1, then check again.")
        return
    configs = manifest.configs(stages)
    fingerprints = {name: fingerprint(identity) for name, identity in identities.items()}
    state = RunState(folder, plan, build_steps(stages, configs, fingerprints))
    state.scan()
    counts = count_run(state)
    resources = {name: config.resources for name, config in configs.items()}
    expected = expected_rows(state, counts)
    console.print(_remaining_table(estimate(folder, counts, expected, resources)))
    unknown = [count.name for count in counts if count.name not in expected]
    if unknown:
        console.print(f"Nothing is known yet of {', '.join(unknown)}: generate --wave 1 measures them.")
    else:
        pairs = sum(
            expected[count.name] * count.kept.total() / max(1, judged(count))
            for count in counts
            if state.steps[count.name].publishes
        )
        console.print(f"About {pairs:.0f} pairs of {plan.rows} planned edits.", highlight=False)


def judged(count: StageCount) -> int:
    """Number of rows that a stage has kept, rejected or failed."""
    return count.given.total() - count.pending.total()


def expected_rows(state: RunState, counts: Sequence[StageCount]) -> dict[str, float]:
    """The rows that each stage will have been given at the end, by the shares decided so far.

    Stages of which nothing is known yet are left out.
    """
    by_name = {count.name: count for count in counts}
    expected: dict[str, float] = {}
    for name, step in state.steps.items():
        if not all(given.step in expected for given in step.rows_of):
            continue
        rows = 0.0 if step.rows_of else float(state.plan.rows)
        for given in step.rows_of:
            before = by_name[given.step]
            rows += expected[given.step] * before.giving(given).total() / max(1, judged(before))
        if judged(by_name[name]) or not rows:
            expected[name] = rows
    return expected


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
