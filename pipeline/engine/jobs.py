"""Messages between the driver and its workers: a job, its units, and the result of each unit."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.inputs.pictures import Pictures
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder
from pipeline.store.plan import Plan
from stages.base import StageConfig
from stages.placed import PlacedStage
from stages.tasks import Tasks

AHEAD = 64
"""Most units that a worker is told of before it gets them."""


@dataclass(frozen=True)
class Job:
    """A worker's description of its stage and run, sent to worker processes."""

    folder: RunFolder
    plan: Plan
    steps: tuple[Step, ...]
    step: Step
    placed: PlacedStage
    config: StageConfig
    tasks: Tasks
    models: Mapping[str, str]
    """The run's models by manifest key."""
    pictures: Pictures | None = None
    """Those of the captions, in a run with ``captions.picture``."""


@dataclass(frozen=True)
class Unit:
    """One file to write."""

    number: int
    parts: tuple[int, ...]
    retry: bool = False
    """Run only the failed rows; keep the other records."""
    reuse: bool = False
    """Keep the records whose input is unchanged (:mod:`pipeline.engine.reuse`)."""
    careful: bool = False
    """Run every row alone, and leave a note of the row that runs."""
    suspects: tuple[str, ...] = ()
    """Rows that were running when a process ended. They run last in their part, after all other rows."""
    poison: tuple[str, ...] = ()
    """Rows that are known to end their process. They fail without running."""


@dataclass(frozen=True)
class Result:
    unit: int
    rows: int
    seconds: float
    cpu_seconds: float
    """CPU seconds of all the worker's threads."""
    tokens: Mapping[str, int]
    """Tokens that the stage's model has taken, as keys of an event; empty for most stages."""
    smallest_batch: int | None = None
    """The smallest batch that memory allowed (:class:`pipeline.engine.guarded.Guarded`)."""
