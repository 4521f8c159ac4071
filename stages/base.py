"""The contract of a stage, and the decision about a row."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from stages.section import Section
from stages.settings import AUTO, Dtype, Resources, StageConfig, Weights
from stages.tasks import Tasks

__all__ = [
    "AUTO",
    "DECISION_FIELDS",
    "OUTSIDE",
    "PICTURES",
    "Answers",
    "ConfigT",
    "Decision",
    "Dtype",
    "Resources",
    "Section",
    "Stage",
    "StageConfig",
    "Weights",
    "failed",
    "kept",
    "output_schema",
    "rejected",
    "storable",
    "to_table",
]

DECISION_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
]
"""The columns that every stage writes in addition to its own."""
PICTURES = "captions.picture"
"""Among a run's stages, it says that the captions' rows have pictures.

In ``Stage.reads`` it stands for them: ``picture_bytes``, null where ``picture_flaw`` says why."""
OUTSIDE = frozenset({"plan", "run", PICTURES})
"""The names in ``Stage.reads`` that are no stages."""

ConfigT = TypeVar("ConfigT", bound=StageConfig)


class Answers(Protocol):
    """Answers of a model that were paid for, by a digest of all that determines them.

    They are kept beside the run, so that a part that is made again does not pay for them again.
    """

    def get(self, key: str) -> str | None: ...

    def put(self, key: str, answer: str) -> None: ...


class Stage(ABC, Generic[ConfigT]):
    """One step of the pipeline: a table of rows in, the same rows with new columns out.

    ``__call__`` receives at most ``config.batch`` rows with the columns ``id`` and those in ``reads``. It
    returns one record per row in the same order, with ``DECISION_FIELDS`` and ``schema``. If it raises, the
    engine calls it again row by row, so that only the row at fault fails.
    """

    version: ClassVar[int]
    """Must be raised when the stage's output changes."""
    reads: ClassVar[Mapping[str, Sequence[str]]]
    """Columns by the stage that wrote them, such as ``{"plan": ["caption"]}``.

    ``run`` has one column, equal in all rows: ``models``, JSON of each model's hub name and revision or
    content hash by manifest key. The stage names are those of the first turn;
    :class:`stages.placed.PlacedStage` has those of a later turn."""
    task_keys: ClassVar[Sequence[str]]
    """The keys of a task file that the stage uses."""
    schema: ClassVar[pa.Schema]
    """The columns that the stage writes besides ``id``, ``status``, ``reason``."""
    Config: ClassVar[type[StageConfig]]
    """The stage's section of the manifest: the class for ``ConfigT``."""
    light: ClassVar[bool] = False
    """Needs seconds of CPU and no model.

    It runs in the driver, and its parts may be replaced without asking.
    """
    needs_section: ClassVar[bool] = False
    """Runs only if the manifest has its section."""
    wide: ClassVar[bool] = False
    """Decides over the whole run.

    Before its first call, ``survey`` receives the rows of all existing parts (tables of ``id`` and the
    columns of ``reads``). A new part makes all its parts stale. Such a stage is light."""
    redraws: ClassVar[bool] = False
    """Whether it receives ``history``, the earlier turns, in later turns, and ``round`` in later rounds."""
    final: ClassVar[Sequence[str]] = ()
    """Reasons of rejections that another seed cannot change; later rounds leave these rows out."""
    schema_metadata: ClassVar[Mapping[bytes, bytes]] = {}
    """Added to the schema metadata of the stage's files."""

    def __init__(self, config: ConfigT, tasks: Tasks, *, turn: int = 1) -> None:
        """Store the settings.

        Args:
            config: the stage's section of the manifest.
            tasks: the run's tasks, by name.
            turn: number of the turn in a session, from 1 (:mod:`stages.sessions.turns`).
        """
        self.config, self.tasks, self.turn = config, tasks, turn
        self.tokens: Counter[str] = Counter()
        """Tokens of a chat model: ``prompt_tokens``, ``answer_tokens``. The engine takes and clears them."""
        self.answers: Answers | None = None
        """Those about the rows that it is given next; the engine sets it. None: nothing is kept."""

    @classmethod
    def beside(cls, stages: Collection[str]) -> "type[Stage[Any]]":
        """The class to use in a run of these stages. Beside an optional stage it can read or write more.

        ``stages`` also has traits of the run that are no stages, such as ``captions.keep``.
        """
        return cls

    @classmethod
    def problems(cls, config: ConfigT, tasks: Tasks) -> Iterable[str]:
        """Problems that would stop the stage, one line each with its manifest key.

        Called in the driver before a run starts. It loads no model and imports no model library. Errors
        raised by a light stage's ``__init__`` need not be repeated.
        """
        return ()

    @classmethod
    def activations(cls, config: ConfigT, tasks: Tasks) -> int | None:
        """Estimate the bytes of memory that one call takes beyond the models' weights; None: not known.

        Called in the driver, like ``problems``, after these found nothing.
        """
        return None

    @classmethod
    def pixels(cls, config: ConfigT) -> int | None:
        """The pixels of a picture that the stage draws, on average over the run's sizes.

        None: it draws none, or the size is the model's own and its files are not on this machine.
        """
        return None

    @classmethod
    def bytes_a_pixel(cls, config: ConfigT, tasks: Tasks) -> int:
        """Bytes of a row's pictures by pixel, uncompressed: 3 a colour picture, 1 a mask. The row with most
        pictures counts."""
        return 0

    @classmethod
    def conflicts(cls, config: ConfigT, tasks: Tasks, sections: Mapping[str, StageConfig]) -> Iterable[str]:
        """Conflicts between the stage's section and other stages' sections; otherwise as ``problems``.

        Args:
            config: the stage's section of the manifest.
            tasks: the run's tasks, by name.
            sections: the sections of all stages of the run, by stage.
        """
        return ()

    @abstractmethod
    def __call__(self, rows: pa.Table) -> pa.Table:
        """One record per row; see the class."""

    def stream(self, batches: Iterator[pa.Table]) -> Generator[pa.Table, None, None] | None:
        """The records of each batch, in order, as ``__call__`` makes them; None: a batch is called alone.

        For a stage that waits for a server, so that it need not wait at the end of each batch. It may read
        further batches before it yields the records of one. If it raises, the engine calls the stage with
        the batches that have no records.
        """
        return None

    def resize(self, batch: int) -> None:
        """Use batches of this many rows from now on, because memory was too small for ``config.batch``."""
        self.config = self.config.model_copy(update={"batch": batch})

    def survey(self, tables: Iterable[pa.Table]) -> None:
        """See ``wide``; other stages need none."""
        return None


@dataclass(frozen=True)
class Decision:
    """The result of a row: its status, the reason, and the stage's columns (missing columns are null)."""

    status: str
    reason: str
    columns: Mapping[str, Any] = field(default_factory=dict)


def kept(**columns: Any) -> Decision:
    return Decision("kept", "", columns)


def rejected(reason: str, **columns: Any) -> Decision:
    """The row is not good enough. ``reason`` is a short name, which is counted."""
    return Decision("rejected", reason, columns)


def failed(error: Exception, **columns: Any) -> Decision:
    """The row could not be processed."""
    return Decision("failed", f"{type(error).__name__}: {error}", columns)


def to_table(ids: Iterable[str], decisions: Sequence[Decision], schema: pa.Schema) -> pa.Table:
    """The stage's output with ``DECISION_FIELDS`` and ``schema``, one record per decision.

    Texts are made ``storable``. A reason of another type is converted to text.
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
    """A value in which every text, also inside lists and dicts, is valid UTF-8 without NUL.

    Models and servers send halves of UTF-16 pairs and NULs. Two matching halves are joined; other halves and
    NULs become U+FFFD.
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
