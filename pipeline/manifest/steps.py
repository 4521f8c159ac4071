"""A step: a stage as the engine sees it, without its class: what it reads, and what a file holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    name: str
    fingerprint: str
    inputs: tuple[str, ...]
    """The stages whose files it reads, the previous one among them; the plan is not named."""
    light: bool = False
    wide: bool = False
    """Whether it decides over the whole run, and so depends on all parts before it."""
    parts_per_unit: int | None = None
    """None: a file a part. Otherwise a file holds the kept rows of so many parts."""

    @property
    def stage(self) -> str:
        """What is done, whichever turn of a session it is done in: ``edit`` of ``edit.2``."""
        return self.name.partition(".")[0]

    @property
    def turn(self) -> int:
        """The turn of a session; 1 where there is but one."""
        return int(self.name.partition(".")[2] or 1)

    @property
    def previous(self) -> str | None:
        """The stage that decides which rows it is given; None: the plan."""
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
    stages: Mapping[str, Any], configs: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> list[Step]:
    """The steps of a run, in the order of ``stages``. What publishes decides no other stage's rows.

    Raises:
        ValueError: a stage reads from one that does not come before it.
    """
    steps: list[Step] = []
    for name, stage in stages.items():
        before = [step.name for step in steps if step.parts_per_unit is None]
        reads = set(stage.reads) - {"plan", "run"}
        if not reads <= set(before):
            raise ValueError(f"stage {name} reads {sorted(reads - set(before))}, which do not come before it")
        grouped = stage.scope == "group"
        steps.append(
            Step(
                name=name,
                fingerprint=fingerprints[name],
                inputs=tuple(s for s in before if s in reads or s == before[-1]),
                light=stage.light,
                wide=stage.wide,
                parts_per_unit=configs[name].parts_per_shard if grouped else None,
            )
        )
    return steps
