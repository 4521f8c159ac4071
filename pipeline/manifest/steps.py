"""A step: a stage as the engine sees it, without its class: its inputs and the parts in each of its files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    name: str
    fingerprint: str
    inputs: tuple[str, ...]
    """Names of the stages whose files it reads, including the previous stage; the plan is not listed."""
    light: bool = False
    wide: bool = False
    """Whether it compares rows across the whole run, so that it depends on all earlier parts."""
    parts_per_unit: int | None = None
    """None: one file per part. A number N: one file holds the kept rows of N parts."""

    @property
    def stage(self) -> str:
        """The stage without its turn: ``edit`` for ``edit.2``."""
        return self.name.partition(".")[0]

    @property
    def turn(self) -> int:
        """The turn of a session, counted from 1."""
        return int(self.name.partition(".")[2] or 1)

    @property
    def previous(self) -> str | None:
        """The stage whose kept rows are this step's input; None for the first stage, which reads the plan."""
        return self.inputs[-1] if self.inputs else None

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
    stages: Mapping[str, Any], configs: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> list[Step]:
    """The steps of a run, in the order of ``stages``.

    A publishing stage is never another stage's ``previous``.

    Raises:
        ValueError: a stage reads from a stage that does not come before it.
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
