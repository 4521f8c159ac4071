"""A stage at its place in a run: in which turn of a session it works, and so what it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.base import Publisher, Stage, StageConfig
from stages.tasks import Tasks


def step_name(stage: str, turn: int) -> str:
    """The name of a stage's step, and so of its folder: ``edit``, in the second turn ``edit.2``."""
    return stage if turn == 1 else f"{stage}.{turn}"


@dataclass(frozen=True)
class PlacedStage:
    """What the engine is given for each step of a run."""

    name: str
    """Of the stage, which is also its section of the manifest: ``edit`` in every turn."""
    stage: type[Stage[Any]]
    turn: int
    """Of a session, from 1."""
    reads: Mapping[str, Sequence[str]]
    """As ``Stage.reads``, by the names of the steps that wrote the columns: ``mask.2`` in the second turn."""

    @property
    def step(self) -> str:
        return step_name(self.name, self.turn)

    @property
    def publisher(self) -> type[Publisher[Any]]:
        """The stage as one that publishes.

        Raises:
            TypeError: it does not.
        """
        if not issubclass(self.stage, Publisher):
            raise TypeError(f"the stage {self.name} publishes nothing: it must derive from Publisher")
        return self.stage

    def load(self, config: StageConfig, tasks: Tasks) -> Stage[Any]:
        """The stage itself; its models are loaded here."""
        return self.stage(config, tasks, turn=self.turn)


Chain = Mapping[str, PlacedStage]
"""The stages of a run by the names of their steps, in order."""


def first_turn(stages: Mapping[str, type[Stage[Any]]]) -> dict[str, PlacedStage]:
    """The stages of a run of one turn."""
    return {name: PlacedStage(name, stage, 1, stage.reads) for name, stage in stages.items()}
