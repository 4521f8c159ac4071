"""A stage at its place in a run: the turn that it works in, and the steps that it reads from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.base import Stage, StageConfig
from stages.publisher import Publisher
from stages.tasks import Tasks


def step_name(stage: str, turn: int) -> str:
    """The name of a stage's step and folder: ``edit``; in the second turn ``edit.2``."""
    return stage if turn == 1 else f"{stage}.{turn}"


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

    @property
    def step(self) -> str:
        return step_name(self.name, self.turn)

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


def first_turn(stages: Mapping[str, type[Stage[Any]]]) -> dict[str, PlacedStage]:
    """The stages of a run of one turn."""
    there = {name: stage.beside(stages) for name, stage in stages.items()}
    return {name: PlacedStage(name, stage, 1, stage.reads) for name, stage in there.items()}
