"""Which files of a run are done, by their footers alone.

A file is done when its fingerprint is the expected one, every input digest equals the upstream
file's present digest, and everything upstream is done. Nothing reads a file that is not done.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from pipeline.errors import UserError
from pipeline.manifest.steps import Step
from pipeline.store.folder import RunFolder, part_name, shard_name
from pipeline.store.footers import (
    MIN_FOOTERS_TO_CACHE,
    Known,
    cache,
    read_cached,
    read_footers,
    without_collector,
)
from pipeline.store.location import Location, stamps
from pipeline.store.parts import Footer, digest_of_inputs, read_footer
from pipeline.store.plan import Plan
from pipeline.store.sealed import DamagedFileError, Place

Told = TypeVar("Told")


class Memo(dict[int, Told]):
    """What is told of the units of a step, each asked once: a run of a million files asks often."""

    def __init__(self, ask: Callable[[int], Told]) -> None:
        self._ask = ask

    def __missing__(self, unit: int) -> Told:
        told = self[unit] = self._ask(unit)
        return told


class RunState:
    """The footers of a run, each read when it is asked for, or all at once by ``scan``."""

    def __init__(self, folder: RunFolder, plan: Plan, steps: Sequence[Step]) -> None:
        self.folder = folder
        self.plan = plan
        self.steps = {step.name: step for step in steps}
        # Reference cycles on purpose: the collector is frozen (``without_collector``), so the process exits
        # without spending seconds on them.
        self._footers: dict[str, Memo[Footer | None]] = {
            step.name: Memo(partial(self._read, step)) for step in steps
        }
        self._done: dict[str, Memo[bool]] = {step.name: Memo(partial(self._is_done, step)) for step in steps}
        self._known: Known | None = None
        self._all: dict[str, str] = {}
        self.damaged: dict[tuple[str, int], DamagedFileError] = {}
        """By step and unit, of those read so far: files that are there and are not believed."""

    def path(self, step: Step, unit: int) -> Location:
        """The file of a unit."""
        return self.folder.root / step.name / self._name(step, unit)

    def _name(self, step: Step, unit: int) -> str:
        if not step.publishes:
            return part_name(unit)
        return shard_name(unit, step.unit_count(self.plan.parts))

    def footer(self, step: Step, unit: int) -> Footer | None:
        """The footer of a unit's file, whether it is done or stale."""
        return self._footers[step.name][unit]

    def place(self, step: Step, unit: int) -> Place:
        """What the file of a unit says of itself."""
        return Place(self.plan.digest, step.name, unit)

    def _read(self, step: Step, unit: int) -> Footer | None:
        try:
            return self._believed(step, unit, read_footer(self.path(step, unit), self.place(step, unit)))
        except DamagedFileError as error:
            return self._believed(step, unit, error)

    def _believed(self, step: Step, unit: int, found: Footer | DamagedFileError | None) -> Footer | None:
        """What was found, if it can be believed."""
        self.damaged.pop((step.name, unit), None)
        if isinstance(found, DamagedFileError):
            self.damaged[step.name, unit] = found
            return None
        return found

    def refresh(self, step: Step, unit: int) -> None:
        """The unit's file was written."""
        self._footers[step.name].pop(unit, None)
        self._forget(step, unit)

    @without_collector()
    def scan(self) -> None:
        """Have all footers as they are now, by one listing a stage.

        Read are those whose files are not known by their stamps, from the last scan or from
        ``footers.parquet``; that file is written anew when many were read.
        """
        if self._known is None:
            self._known, done = read_cached(self.folder.footers, self.plan.digest, self._basis())
            for name, units in done.items():
                for unit in units:
                    self._footers[name].setdefault(unit, self._known[name][unit][1])
                    self._done[name][unit] = True
        read = sum(self._scan_step(step, self._known) for step in self.steps.values())
        if read >= MIN_FOOTERS_TO_CACHE:
            done = {
                name: {unit for unit in units if self.done(self.steps[name], unit)}
                for name, units in self._known.items()
            }
            with suppress(OSError):  # the run may be another's, and not to be written to
                cache(self.folder.footers, self._known, done, self.plan.digest, self._basis())

    def _basis(self) -> str:
        """All that says, beside the footers, which files are done."""
        return repr([self.plan.digest, *self.steps.values()])

    def _scan_step(self, step: Step, known: Known) -> int:
        """Have a step's footers, and in ``known`` those worth keeping; how many of them were read."""
        listed = stamps(self.folder.root / step.name)
        self.damaged = {key: error for key, error in self.damaged.items() if key[0] != step.name}
        before, cached = known.get(step.name, {}), {}
        found: dict[int, Footer | None] = {}
        unread: dict[int, str | None] = {}
        for unit in range(step.unit_count(self.plan.parts)):
            name = self._name(step, unit)
            stamp, old = listed.get(name), before.get(unit)
            if old is not None and old[0] == stamp:
                cached[unit], found[unit] = old, old[1]
            elif name in listed:
                unread[unit] = stamp
            else:
                found[unit] = None
        footers = read_footers([(self.path(step, unit), self.place(step, unit)) for unit in unread])
        for (unit, stamp), read in zip(unread.items(), footers, strict=True):
            footer = found[unit] = self._believed(step, unit, read)
            if footer is not None and stamp is not None:
                cached[unit] = stamp, footer
        before_scan = self._footers[step.name]
        if any(self._done.values()):
            for unit, footer in found.items():
                if before_scan.get(unit) is not footer:
                    self._forget(step, unit)
        before_scan.update(found)
        known[step.name] = cached
        return sum(unit in cached for unit in unread)

    def _forget(self, step: Step, unit: int) -> None:
        """What is done depends on the unit's file, in its step and in those after it."""
        self._all = {}
        steps = list(self.steps.values())
        parts: Iterable[int] | None = step.parts(unit, self.plan.parts)
        for later in steps[steps.index(step) :]:
            if later.wide and later is not step:
                parts = None  # all; cleared at once, for this is called for every file that is written
            if parts is None:
                self._done[later.name].clear()
                continue
            for number in later.units(parts):
                self._done[later.name].pop(number, None)

    def readable(self, step: Step, unit: int) -> list[int]:
        """The parts of a unit that are done upstream, so that the step may read them."""
        if step.previous is None:
            return list(step.parts(unit, self.plan.parts))
        done = self._done[step.previous]
        if not step.publishes:  # as most are; asked for every file of a run
            return [unit] if done[unit] else []
        return [part for part in step.parts(unit, self.plan.parts) if done[part]]

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
            footers = self._footers[name]
            for part, number in numbers:
                footer = footers[part]
                if footer is None:
                    raise UserError(
                        f"{self.path(self.steps[name], part)} vanished while it was needed: something else "
                        "deletes or replaces files of the run; give the same command again"
                    )
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
        return self._done[step.name][unit]

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
