"""What travels between the driver and its workers: a job, the units of it, and what came of each."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from pipeline.store.plan import Plan
from stages.base import StageConfig
from stages.placed import PlacedStage
from stages.tasks import Tasks


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of the run; travels to worker processes."""

    folder: RunFolder
    plan: Plan
    steps: tuple[Step, ...]
    step: Step
    placed: PlacedStage
    config: StageConfig
    tasks: Tasks
    models: Mapping[str, str]
    """Each model of the run by manifest key."""


@dataclass(frozen=True)
class Unit:
    """One file to write."""

    number: int
    parts: tuple[int, ...]
    retry: bool = False
    """Run only the rows that failed, keep the other records as they are."""
    careful: bool = False
    """Run every row alone, and leave behind which one runs."""
    suspects: tuple[str, ...] = ()
    """Rows that a process has ended with: run last in their part, so that the others are done by then."""
    poison: tuple[str, ...] = ()
    """Rows that are known to end their process: they fail without being run."""


@dataclass(frozen=True)
class Result:
    unit: int
    rows: int
    seconds: float
    cpu_seconds: float
    """Of all the worker's threads."""
    smallest_batch: int | None = None
    """See ``Guarded``."""
