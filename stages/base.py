"""What a stage is: its contract, the decision about a row, and the config every stage shares."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self
from upath import UPath

from stages.section import Section
from stages.shipped import resolve
from stages.tasks import Tasks

DECISION_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
]
"""The columns every stage writes besides its own."""


class Weights(Section):
    """A section that names a model's weights; its identity becomes part of the fingerprint."""

    model: str = Field(description="a local folder, or a hub name")
    revision: str | None = Field(default=None, description="the hub revision; None for local folders")

    @property
    def from_hub(self) -> bool:
        """Whether ``model`` may be a hub name; otherwise it is a path, whatever it looks like."""
        return True

    @property
    def path(self) -> Path | None:
        """Where the weights lie, ``~`` expanded, or None for a hub name. The only place that tells.

        It is a path if it starts with ``.``, ``/`` or ``~``, if its first folder is here, relative to the
        folder that the command is run in, which a cluster's workers go to too, or if it came with editpairs
        (:mod:`stages.shipped`).
        """
        path = resolve(Path(self.model))
        here = self.model.startswith((".", "/", "~")) or (bool(path.parts) and os.path.exists(path.parts[0]))
        return path if here or path.is_absolute() or not self.from_hub else None

    @property
    def name(self) -> str:
        """What ``from_pretrained`` is told: the path, or the hub name."""
        return self.model if self.path is None else str(self.path)

    @property
    def source(self) -> dict[str, Any]:
        """What ``from_pretrained`` is told besides: the revision, and no hub for what lies here."""
        return {"revision": self.revision, "local_files_only": self.path is not None}


class Resources(Section):
    """What one worker of a stage gets. Not part of the fingerprint."""

    identity: ClassVar[bool] = False

    workers: int = Field(default=1, ge=1, le=4096, description="how many workers run at once")
    gpus: float = Field(
        default=0, ge=0, le=64, description="GPUs a worker, or a share of one; no CPUs are counted then"
    )
    cpus: float = Field(default=1, ge=0, le=1024, description="CPUs a worker")
    hang_seconds: float = Field(
        default=1800,
        gt=0,
        le=30 * 86_400,
        description="a worker that takes so long over a batch, its models' loading included, is ended",
    )
    threads: int = Field(default=1, ge=1, le=1024, description="threads a worker may compute with")

    @model_validator(mode="after")
    def _shares_of_one(self) -> Self:
        """What Ray can give: it counts in ten-thousandths, and shares one GPU but never several."""
        for key, value in (("gpus", self.gpus), ("cpus", self.cpus)):
            if 0 < value < 1e-4:
                raise ValueError(f"{key} must be 0 or at least 0.0001, not {value:g}")
        if self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError(f"gpus must be a whole number or less than 1, not {self.gpus:g}")
        return self


class StageConfig(Section):
    """What every stage's section has."""

    batch: int = Field(default=8, ge=1, le=10_000, description="rows given to the stage at a time")
    resources: Resources = Resources()


ConfigT = TypeVar("ConfigT", bound=StageConfig)


class Stage(ABC, Generic[ConfigT]):
    """One step of the pipeline: a table of rows in, the same rows with new columns out.

    ``__call__`` gets at most ``config.batch`` rows with the columns ``id`` and those named in
    ``reads``, and returns one record a row, in the same order: ``DECISION_FIELDS`` plus
    ``schema``. A row that cannot be handled raises; the engine then gives the rows one by one.
    """

    version: ClassVar[int]
    """Raised when the stage's output changes."""
    reads: ClassVar[Mapping[str, Sequence[str]]]
    """Columns by the stage that wrote them, such as ``{"plan": ["caption"]}``. ``run`` has one, the same
    in all rows: ``models``, JSON of each model's hub name and revision or content hash by manifest key.
    This is the first turn's; :class:`stages.placed.PlacedStage` has those of a later turn."""
    task_keys: ClassVar[Sequence[str]]
    """The keys of a task file that the stage depends on."""
    schema: ClassVar[pa.Schema]
    """The columns the stage writes besides ``id``, ``status``, ``reason``."""
    Config: ClassVar[type[StageConfig]]
    """The stage's section of the manifest: the class that stands for ``ConfigT``."""
    light: ClassVar[bool] = False
    """Seconds of CPU, no model: runs in the driver, and its parts may be replaced unasked."""
    wide: ClassVar[bool] = False
    """Whether it decides over the whole run: before its first rows, ``survey`` is given those of all parts
    that are there (tables of ``id`` and the columns of ``reads``), and a new part makes all stale. Light."""
    redraws: ClassVar[bool] = False
    """Whether it is given ``history`` in later turns: the turns before its own."""
    schema_metadata: ClassVar[Mapping[bytes, bytes]] = {}
    """Added to the schema metadata of the files the stage writes."""

    def __init__(self, config: ConfigT, tasks: Tasks, *, turn: int = 1) -> None:
        """Keep what every stage is made with.

        Args:
            config: the stage's section of the manifest.
            tasks: of the run, by name.
            turn: of a session, from 1 (:mod:`stages.sessions.turns`).
        """
        self.config, self.tasks, self.turn = config, tasks, turn

    @classmethod
    def problems(cls, config: ConfigT, tasks: Tasks) -> Iterable[str]:
        """What would stop the stage, one line each with its manifest key, as far as files and settings tell.

        Asked in the driver before a run starts: it loads no model and imports no model library. What a
        light stage's ``__init__`` raises need not be said again.
        """
        return ()

    @abstractmethod
    def __call__(self, rows: pa.Table) -> pa.Table:
        """One record a row; see the class."""

    def resize(self, batch: int) -> None:
        """Work in batches of so many rows from now on: memory was too small for ``config.batch``."""
        self.config = self.config.model_copy(update={"batch": batch})

    def survey(self, tables: Iterable[pa.Table]) -> None:
        """See ``wide``; the others need none."""
        return None


class PublisherConfig(StageConfig):
    """What the section of a stage that publishes has."""

    parts_per_shard: int = Field(
        default=8, ge=1, le=100_000, description="parts whose kept rows make one file"
    )


PublisherConfigT = TypeVar("PublisherConfigT", bound=PublisherConfig)


class Publisher(Stage[PublisherConfigT]):
    """A stage that publishes: it decides no other stage's rows, and describes what it wrote.

    One file holds the rows it kept of ``config.parts_per_shard`` parts, without ``status`` and ``reason``.
    """

    @staticmethod
    @abstractmethod
    def describe(run: Path | UPath, summary: Mapping[str, Any]) -> str:
        """The dataset card, in Markdown; the same files give the same text.

        Args:
            run: the run's folder, which holds a folder of files for every step of the stage.
            summary: ``name``, ``seed``, ``planned``, ``published``, ``models`` (as in ``run``, but
                parsed), ``funnel`` (given, kept, rejected, failed, pending by stage), ``rejected``
                (counts by stage and reason) and ``files`` (by folder: ``name``, ``rows``, ``digest``).
        """


@dataclass(frozen=True)
class Decision:
    """What became of a row: its status, the reason, and the stage's columns (absent = null)."""

    status: str
    reason: str
    columns: Mapping[str, Any] = field(default_factory=dict)


def kept(**columns: Any) -> Decision:
    return Decision("kept", "", columns)


def rejected(reason: str, **columns: Any) -> Decision:
    """The row is not good enough; ``reason`` is a short name that is counted."""
    return Decision("rejected", reason, columns)


def failed(error: Exception, **columns: Any) -> Decision:
    """The row could not be processed."""
    return Decision("failed", f"{type(error).__name__}: {error}", columns)


def to_table(ids: Iterable[str], decisions: Sequence[Decision], schema: pa.Schema) -> pa.Table:
    """The stage's output: ``DECISION_FIELDS`` and ``schema``, one record a decision.

    Text is made ``storable``; a reason that is no text is written as one.
    """
    columns: dict[str, Any] = {
        "id": list(ids),
        "status": [d.status for d in decisions],
        "reason": [str(d.reason) for d in decisions],
    }
    for name in schema.names:
        columns[name] = [d.columns.get(name) for d in decisions]
    return pa.Table.from_pydict(storable(columns), schema=output_schema(schema))


def storable(value: Any) -> Any:
    """A value whose texts, however deep in lists and dicts, can be written as UTF-8 by anyone.

    Models and servers send halves of UTF-16 pairs and NULs: two halves are joined, what is left becomes
    U+FFFD. All else is as it was.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        joined = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return joined.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def output_schema(schema: pa.Schema) -> pa.Schema:
    """``DECISION_FIELDS`` followed by a stage's own columns."""
    return pa.schema([*DECISION_FIELDS, *schema])
