"""Which files of a run are done, by their footers alone.

A file is done when its fingerprint is the expected one, every input digest equals the upstream
file's present digest, and everything upstream is done. Nothing reads a file that is not done.
"""

from collections.abc import Sequence

from pipeline.folder import RunFolder
from pipeline.parts import Footer, read_footer
from pipeline.plan import Plan
from pipeline.steps import Step
from pipeline.storage import Location


class RunState:
    """The footers of a run, read once and kept until ``refresh``."""

    def __init__(self, folder: RunFolder, plan: Plan, steps: Sequence[Step]) -> None:
        self.folder = folder
        self.plan = plan
        self.steps = {step.name: step for step in steps}
        self._footers: dict[tuple[str, int], Footer | None] = {}

    def path(self, step: Step, unit: int) -> Location:
        """The file of a unit."""
        if step.parts_per_unit is None:
            return self.folder.part(step.name, unit)
        return self.folder.shard(step.name, unit, self.shard_count(step))

    def shard_count(self, step: Step) -> int:
        return len(step.units(range(self.plan.parts)))

    def footer(self, step: Step, unit: int) -> Footer | None:
        """The footer of a unit's file, whether it is done or stale."""
        key = (step.name, unit)
        if key not in self._footers:
            self._footers[key] = read_footer(self.path(step, unit))
        return self._footers[key]

    def refresh(self, step: Step, unit: int) -> None:
        """The unit's file was written."""
        self._footers.pop((step.name, unit), None)

    def readable(self, step: Step, unit: int) -> list[int]:
        """The parts of a unit that are done upstream, so that the step may read them."""
        parts = step.parts(unit, self.plan.parts)
        if step.previous is None:
            return list(parts)
        return [part for part in parts if self.done(self.steps[step.previous], part)]

    def inputs(self, step: Step, parts: Sequence[int]) -> dict[str, str]:
        """The present digests of what the step would read; ``parts`` must be readable."""
        digests = {"plan": self.plan.digest}
        for name in step.inputs:
            for part in parts:
                footer = self.footer(self.steps[name], part)
                assert footer is not None
                digests[f"{name}/{part:05d}"] = footer.digest
        return digests

    def done(self, step: Step, unit: int) -> bool:
        """Whether the unit's file is there and up to date with everything before it."""
        footer = self.footer(step, unit)
        if footer is None or footer.fingerprint != step.fingerprint:
            return False
        parts = self.readable(step, unit)
        return bool(parts) and footer.inputs == self.inputs(step, parts)

    def given(self, step: Step, parts: Sequence[int]) -> int:
        """Rows the step is given of readable ``parts``."""
        if step.previous is None:
            return sum(self.plan.part_rows[part] for part in parts)
        footers = [self.footer(self.steps[step.previous], part) for part in parts]
        return sum(footer.total("kept") for footer in footers if footer)
