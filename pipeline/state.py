"""Which files of a run are done, by their footers alone.

A file is done when its fingerprint is the expected one, every input digest equals the upstream
file's present digest, and everything upstream is done. Nothing reads a file that is not done.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

from pipeline.folder import RunFolder, part_name, shard_name
from pipeline.footers import WORTH, Known, keep, read_footers, read_kept, without_collector
from pipeline.parts import Footer, digest_of_inputs, read_footer
from pipeline.plan import Plan
from pipeline.steps import Step
from pipeline.storage import Location, stamps


class RunState:
    """The footers of a run, each read when it is asked for, or all at once by ``scan``."""

    def __init__(self, folder: RunFolder, plan: Plan, steps: Sequence[Step]) -> None:
        self.folder = folder
        self.plan = plan
        self.steps = {step.name: step for step in steps}
        self._footers: dict[tuple[str, int], Footer | None] = {}
        self._known: Known | None = None
        self._done: dict[tuple[str, int], bool] = {}
        self._all: dict[str, str] = {}
        # A ring: of a large run the collector has set all aside (``without_collector``), so that at the end
        # it is left to the system, and not taken apart for seconds.
        self._ring = self

    def path(self, step: Step, unit: int) -> Location:
        """The file of a unit."""
        return self.folder.root / step.name / self._name(step, unit)

    def _name(self, step: Step, unit: int) -> str:
        if step.parts_per_unit is None:
            return part_name(unit)
        return shard_name(unit, step.unit_count(self.plan.parts))

    def footer(self, step: Step, unit: int) -> Footer | None:
        """The footer of a unit's file, whether it is done or stale."""
        key = (step.name, unit)
        if key not in self._footers:
            self._footers[key] = read_footer(self.path(step, unit))
        return self._footers[key]

    def refresh(self, step: Step, unit: int) -> None:
        """The unit's file was written."""
        self._footers.pop((step.name, unit), None)
        self._forget(step, unit)

    @without_collector()
    def scan(self) -> None:
        """Have all footers as they are now, by one listing a stage.

        Read are those whose files are not known by their stamps, from the last scan or from
        ``footers.parquet``; that file is written anew when many were read.
        """
        if self._known is None:
            self._known = read_kept(self.folder.footers)
        known: Known = {}
        found: dict[tuple[str, int], Footer | None] = {}
        unread: dict[tuple[str, int], str | None] = {}
        for step in self.steps.values():
            listed = stamps(self.folder.root / step.name)
            for unit in range(step.unit_count(self.plan.parts)):
                key, name = (step.name, unit), self._name(step, unit)
                stamp = listed.get(name)
                old = self._known.get(key)
                if old is not None and old[0] == stamp:
                    known[key], found[key] = old, old[1]
                elif name in listed:
                    unread[key] = stamp
                else:
                    found[key] = None
        paths = [self.path(self.steps[name], unit) for name, unit in unread]
        for (key, stamp), footer in zip(unread.items(), read_footers(paths), strict=True):
            found[key] = footer
            if footer is not None and stamp is not None:
                known[key] = stamp, footer
        for (name, unit), old_footer in self._footers.items():
            if found[name, unit] is not old_footer:
                self._forget(self.steps[name], unit)
        self._footers, self._known = found, known
        if sum(key in known for key in unread) >= WORTH:
            with suppress(OSError):  # the run may be another's, and not to be written to
                keep(self.folder.footers, known)

    def _forget(self, step: Step, unit: int) -> None:
        """What is done depends on the unit's file, in its step and in those after it."""
        self._all = {}
        steps = list(self.steps.values())
        parts: Iterable[int] = step.parts(unit, self.plan.parts)
        for later in steps[steps.index(step) :]:
            if later.wide and later is not step:
                parts = range(self.plan.parts)
            for number in later.units(parts):
                self._done.pop((later.name, number), None)

    def readable(self, step: Step, unit: int) -> list[int]:
        """The parts of a unit that are done upstream, so that the step may read them."""
        parts = step.parts(unit, self.plan.parts)
        if step.previous is None:
            return list(parts)
        return [part for part in parts if self.done(self.steps[step.previous], part)]

    def all_readable(self, step: Step) -> list[int]:
        """All parts of the run that are done upstream."""
        return [
            part for unit in range(step.unit_count(self.plan.parts)) for part in self.readable(step, unit)
        ]

    def inputs(self, step: Step, parts: Sequence[int]) -> dict[str, str]:
        """The present digests of what the step would read; ``parts`` must be readable."""
        digests = {"plan": self.plan.digest}
        if step.wide:
            return digests | {f"{name}/all": self._digest_of_all(self.steps[name]) for name in step.inputs}
        numbers = [(part, f"/{part:05d}") for part in parts]
        for name in step.inputs:
            upstream = self.steps[name]
            for part, number in numbers:
                footer = self.footer(upstream, part)
                assert footer is not None
                digests[name + number] = footer.digest
        return digests

    def _digest_of_all(self, step: Step) -> str:
        """Of the files of a step that are done, all together."""
        if step.name not in self._all:
            there = [
                (unit, footer.digest)
                for unit in range(step.unit_count(self.plan.parts))
                if self.done(step, unit) and (footer := self.footer(step, unit))
            ]
            self._all[step.name] = hashlib.blake2b(repr(there).encode(), digest_size=16).hexdigest()
        return self._all[step.name]

    def done(self, step: Step, unit: int) -> bool:
        """Whether the unit's file is there and up to date with everything before it."""
        key = (step.name, unit)
        if key not in self._done:
            self._done[key] = self._is_done(step, unit)
        return self._done[key]

    def _is_done(self, step: Step, unit: int) -> bool:
        footer = self.footer(step, unit)
        if footer is None or footer.fingerprint != step.fingerprint:
            return False
        parts = self.readable(step, unit)
        return bool(parts) and footer.inputs == digest_of_inputs(self.inputs(step, parts))

    def given(self, step: Step, parts: Sequence[int]) -> int:
        """Rows the step is given of readable ``parts``."""
        if step.previous is None:
            return sum(self.plan.part_rows[part] for part in parts)
        footers = [self.footer(self.steps[step.previous], part) for part in parts]
        return sum(footer.total("kept") for footer in footers if footer)
