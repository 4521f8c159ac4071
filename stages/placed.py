"""A stage at its place in a run: its turn and round, the rows it is given, and the steps it reads from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.base import Stage, StageConfig
from stages.publisher import Publisher
from stages.tasks import Tasks


def step_name(stage: str, turn: int, round: int = 1) -> str:
    """The name of a stage's step and folder.

    ``edit``; in the second turn ``edit.2``; in the second turn's third round ``edit.2.r3``.
    """
    return stage + (f".{turn}" if turn > 1 else "") + (f".r{round}" if round > 1 else "")


@dataclass(frozen=True)
class Given:
    """Rows that a step is given: those that an earlier step decided in one way."""

    step: str
    """The earlier step."""
    status: str
    final: tuple[str, ...] = ()
    """Reasons whose rows are left out."""


@dataclass(frozen=True)
class Later:
    """Columns that are made again in later rounds. A row's values are those of the last round that had it."""

    step: str
    """The step that wrote the columns in the first round."""
    columns: tuple[str, ...]
    steps: tuple[str, ...]
    """The steps of later rounds that wrote them again, in order. A row may be in none of them."""


@dataclass(frozen=True)
class PlacedStage:
    """One step of a run, as the engine receives it."""

    name: str
    """Name of the stage and of its section in the manifest: ``edit`` in every turn."""
    stage: type[Stage[Any]]
    turn: int
    """Number of the turn in a session, from 1."""
    reads: Mapping[str, Sequence[str]]
    """As ``Stage.reads``, by the steps that wrote the columns: ``mask.2`` in the second turn."""
    round: int = 1
    """Number of the round in the turn, from 1 (:mod:`stages.rounds`)."""
    given: tuple[Given, ...] = ()
    """The rows it is given; empty for the rows that the step before kept."""
    later: tuple[Later, ...] = ()
    """Columns of ``reads`` that later rounds made again."""

    @property
    def step(self) -> str:
        return step_name(self.name, self.turn, self.round)

    @property
    def publisher(self) -> type[Publisher[Any]]:
        """The stage as a publisher.

        Raises:
            TypeError: the stage does not publish.
        """
        if not issubclass(self.stage, Publisher):
            raise TypeError(f"the stage {self.name} publishes nothing: it must derive from Publisher")
        return self.stage

    def load(self, config: StageConfig, tasks: Tasks) -> Stage[Any]:
        """Construct the stage; it loads its models here."""
        return self.stage(config, tasks, turn=self.turn)


Chain = Mapping[str, PlacedStage]
"""The stages of a run by step name, in order."""


def first_turn(
    stages: Mapping[str, type[Stage[Any]]], traits: Collection[str] = ()
) -> dict[str, PlacedStage]:
    """The stages of a run of one turn; ``traits`` are seen beside them by ``Stage.beside``."""
    there = {name: stage.beside({*stages, *traits}) for name, stage in stages.items()}
    return {name: PlacedStage(name, stage, 1, stage.reads) for name, stage in there.items()}
