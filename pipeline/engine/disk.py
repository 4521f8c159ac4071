"""The disk space that a run takes: measured on finished parts, or counted from the size of pictures."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.engine.expected import expected_rows, judged
from pipeline.engine.ledger import count_run
from pipeline.engine.opened import Run
from pipeline.engine.state import RunState
from pipeline.manifest.steps import Step
from pipeline.shown import size_shown
from pipeline.store.location import Location, is_local
from stages.base import StageConfig
from stages.placed import Chain
from stages.tasks import Tasks

SAMPLE = 100
"""Most files of a stage whose sizes are read."""


@dataclass(frozen=True)
class DiskUse:
    """The disk space of one stage."""

    step: str
    bytes_a_row: float
    rows: float
    """Rows that the stage will have been given at the end."""
    written: float = 0
    """Of these, the rows in its finished files."""

    @property
    def whole(self) -> float:
        """Bytes of all rows."""
        return self.bytes_a_row * self.rows

    def to_come(self, share: float = 1) -> float:
        """Bytes still to be written for a share of the planned rows."""
        return self.bytes_a_row * max(0.0, share * self.rows - self.written)


def measured(state: RunState) -> list[DiskUse]:
    """The disk space by stage, from the files of finished parts. Stages without any are left out.

    Raises:
        OSError: a file cannot be read.
    """
    counts = count_run(state)
    expected = expected_rows(state, counts)
    uses = []
    for count in counts:
        step = state.steps[count.name]
        if count.name in expected and (each := _bytes_a_row(state, step)) is not None:
            uses.append(DiskUse(count.name, each, expected[count.name], judged(count)))
    return uses


def _bytes_a_row(state: RunState, step: Step) -> float | None:
    """Bytes of a row in whole files; None before the first row."""
    done = (unit for unit in range(step.unit_count(state.plan.parts)) if state.done(step, unit))
    size = rows = 0
    for unit in islice(done, SAMPLE):
        footer = state.footer(step, unit)
        if footer is not None:
            size += state.path(step, unit).stat().st_size + (footer.pruned.size if footer.pruned else 0)
            rows += footer.counts.total()
    return size / rows if rows else None


def counted(
    stages: Chain, configs: Mapping[str, StageConfig], tasks: Tasks, rows: int
) -> list[DiskUse] | None:
    """The most that the pictures of ``rows`` rows take: uncompressed, no row rejected.

    None: the size of the pictures is not known here.
    """
    sizes = [placed.stage.pixels(configs[step]) for step, placed in stages.items()]
    pixels = max((size for size in sizes if size is not None), default=None)
    if pixels is None:
        return None
    by_step = {step: placed.stage.bytes_a_pixel(configs[step], tasks) for step, placed in stages.items()}
    return [DiskUse(step, pixels * each, rows) for step, each in by_step.items() if each]


def free_bytes(folder: Location) -> int | None:
    """Free bytes where a run's folder is, or will be; None in an object store, which has no limit."""
    if not is_local(folder):
        return None
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def shortage(needed: float, folder: Location, at_most: bool) -> str:
    """One message if the disk is too small; otherwise empty.

    Args:
        needed: bytes still to be written.
        folder: the run's folder.
        at_most: whether ``needed`` was counted and not measured.
    """
    free = free_bytes(folder)
    if free is None or needed <= free:
        return ""
    told = "may need up to" if at_most else "needs about"
    return (
        f"disk: this {told} {size_shown(needed)} more, and {size_shown(free)} are free at {folder}: name "
        "another disk or an object store under 'runs', set 'rows' lower, or prune other runs"
    )


def shortage_of(run: Run, parts: Sequence[int]) -> str:
    """The same message for the parts that a command is about to make."""
    if not is_local(run.folder.root):
        return ""
    share = sum(run.plan.part_rows[part] for part in parts) / max(1, run.plan.rows)
    uses, at_most = measured(run.state), False
    if not uses:
        found = counted(run.stages, run.manifest.configs(run.stages), run.tasks, run.plan.rows)
        uses, at_most = found or [], True
    return shortage(sum(use.to_come(share) for use in uses), run.folder.root, at_most)
