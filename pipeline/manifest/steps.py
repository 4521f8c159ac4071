"""A step: a stage as the engine sees it, without its class: what it reads, and what a file holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from stages.base import Publisher, PublisherConfig, StageConfig
from stages.placed import Chain, step_name


@dataclass(frozen=True)
class Step:
    stage: str
    """What is done, whichever turn of a session it is done in."""
    fingerprint: str
    inputs: tuple[str, ...]
    """The steps whose files it reads, the previous one among them; the plan is not named."""
    light: bool = False
    wide: bool = False
    """Whether it decides over the whole run, and so depends on all parts before it."""
    parts_per_unit: int | None = None
    """None: a file a part. Otherwise a file holds the kept rows of so many parts."""
    turn: int = 1
    """Of a session, from 1."""

    @cached_property
    def name(self) -> str:
        """The step's folder in the run: ``edit``, in the second turn ``edit.2``."""
        return step_name(self.stage, self.turn)

    @property
    def publishes(self) -> bool:
        """Whether its files are the run's product, of kept rows alone."""
        return self.parts_per_unit is not None

    @property
    def previous(self) -> str | None:
        """The step that decides which rows it is given; None: the plan."""
        return self.inputs[-1] if self.inputs else None

    def units(self, parts: Iterable[int]) -> list[int]:
        """The units that hold ``parts``."""
        return sorted({part // (self.parts_per_unit or 1) for part in parts})

    def unit_count(self, parts: int) -> int:
        """Of a plan of ``parts`` parts."""
        return -(-parts // (self.parts_per_unit or 1))

    def parts(self, unit: int, total: int) -> range:
        """The parts of a unit, of a plan of ``total`` parts."""
        size = self.parts_per_unit or 1
        return range(unit * size, min((unit + 1) * size, total))


def build_steps(
    stages: Chain, configs: Mapping[str, StageConfig], fingerprints: Mapping[str, str]
) -> list[Step]:
    """The steps of a run, in the order of ``stages``. What publishes decides no other stage's rows.

    Args:
        stages: of the run.
        configs: the section of each, by step.
        fingerprints: of each, by step.

    Raises:
        ValueError: a stage reads from one that does not come before it.
    """
    steps: list[Step] = []
    for name, placed in stages.items():
        before = [step.name for step in steps if not step.publishes]
        reads = set(placed.reads) - {"plan", "run"}
        if not reads <= set(before):
            raise ValueError(f"stage {name} reads {sorted(reads - set(before))}, which do not come before it")
        steps.append(
            Step(
                stage=placed.name,
                turn=placed.turn,
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
