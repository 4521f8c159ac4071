"""A step: a stage as the engine sees it, without its class: its inputs and the parts in each of its files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from stages.base import OUTSIDE, StageConfig
from stages.placed import Chain, Given, step_name
from stages.publisher import Publisher, PublisherConfig


@dataclass(frozen=True)
class Step:
    stage: str
    """Name of the stage, the same in every turn of a session."""
    fingerprint: str
    inputs: tuple[str, ...]
    """Names of the steps whose files it reads, including the previous step; the plan is not listed."""
    light: bool = False
    wide: bool = False
    """Whether it compares rows across the whole run, so that it depends on all earlier parts."""
    parts_per_unit: int | None = None
    """None: one file per part. A number N: one file holds the kept rows of N parts."""
    turn: int = 1
    """The turn of a session, counted from 1."""
    round: int = 1
    """The round of the turn, counted from 1."""
    given: tuple[Given, ...] = ()
    """The rows it is given; empty for the rows that the previous step kept."""

    @cached_property
    def name(self) -> str:
        """The step's folder in the run: ``edit``, ``edit.2`` in the second turn, ``edit.r2`` in round 2."""
        return step_name(self.stage, self.turn, self.round)

    @property
    def publishes(self) -> bool:
        """Whether its files are the product of the run and hold kept rows alone."""
        return self.parts_per_unit is not None

    @property
    def previous(self) -> str | None:
        """The last step before it; None for the first step, which reads the plan.

        If it is done, all others in ``inputs`` are done too.
        """
        return self.inputs[-1] if self.inputs else None

    @cached_property
    def rows_of(self) -> tuple[Given, ...]:
        """The rows it is given, by the steps that decided them; empty for the first step, which has all."""
        return self.given or (() if self.previous is None else (Given(self.previous, "kept"),))

    def units(self, parts: Iterable[int]) -> list[int]:
        """The numbers of the units that hold ``parts``."""
        return sorted({part // (self.parts_per_unit or 1) for part in parts})

    def unit_count(self, parts: int) -> int:
        """The number of units in a plan of ``parts`` parts."""
        return -(-parts // (self.parts_per_unit or 1))

    def parts(self, unit: int, total: int) -> range:
        """The parts in one unit, in a plan of ``total`` parts."""
        size = self.parts_per_unit or 1
        return range(unit * size, min((unit + 1) * size, total))


def build_steps(
    stages: Chain, configs: Mapping[str, StageConfig], fingerprints: Mapping[str, str]
) -> list[Step]:
    """The steps of a run, in the order of ``stages``.

    A publishing stage is never another stage's ``previous``.

    Args:
        stages: of the run.
        configs: the section of each, by step.
        fingerprints: of each, by step.

    Raises:
        ValueError: a stage reads from a stage that does not come before it.
    """
    steps: list[Step] = []
    for name, placed in stages.items():
        before = [step.name for step in steps if not step.publishes]
        reads = set(placed.reads) - OUTSIDE
        reads |= {given.step for given in placed.given}
        reads |= {step for later in placed.later for step in later.steps}
        if not reads <= set(before):
            raise ValueError(f"stage {name} reads {sorted(reads - set(before))}, which do not come before it")
        steps.append(
            Step(
                stage=placed.name,
                turn=placed.turn,
                round=placed.round,
                given=placed.given,
                fingerprint=fingerprints[name],
                inputs=tuple(s for s in before if s in reads or s == before[-1]),
                light=placed.stage.light,
                wide=placed.stage.wide,
                parts_per_unit=_parts_per_unit(placed.stage, configs[name]),
            )
        )
    return steps


def _parts_per_unit(stage: type, config: StageConfig) -> int | None:
    if not issubclass(stage, Publisher):
        return None
    if not isinstance(config, PublisherConfig):
        raise TypeError(f"{stage.__name__} publishes, so its Config must derive from PublisherConfig")
    return config.parts_per_shard
