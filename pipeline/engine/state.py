"""Which files of a run are done, decided from footers alone.

A file is done if its fingerprint is the expected one, each input digest equals the upstream file's current
digest, and everything upstream is done. A file that is not done is never read as input.
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
    """Cached answers about a step's units: a run of a million files asks often."""

    def __init__(self, ask: Callable[[int], Told]) -> None:
        self._ask = ask

    def __missing__(self, unit: int) -> Told:
        told = self[unit] = self._ask(unit)
        return told


class RunState:
    """The footers of a run. Each is read on demand, or all at once by ``scan``."""

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
        """Files that exist and are not trusted, by step and unit, among the files read so far."""

    def path(self, step: Step, unit: int) -> Location:
        """The file of a unit."""
        return self.folder.root / step.name / self._name(step, unit)

    def _name(self, step: Step, unit: int) -> str:
        if not step.publishes:
            return part_name(unit)
        return shard_name(unit, step.unit_count(self.plan.parts))

    def footer(self, step: Step, unit: int) -> Footer | None:
        """The footer of a unit's file, done or stale."""
        return self._footers[step.name][unit]

    def place(self, step: Step, unit: int) -> Place:
        """The place that the unit's file must name."""
        return Place(self.plan.digest, step.name, unit)

    def _read(self, step: Step, unit: int) -> Footer | None:
        try:
            return self._believed(step, unit, read_footer(self.path(step, unit), self.place(step, unit)))
        except DamagedFileError as error:
            return self._believed(step, unit, error)

    def _believed(self, step: Step, unit: int, found: Footer | DamagedFileError | None) -> Footer | None:
        """The footer, or None if it cannot be trusted."""
        self.damaged.pop((step.name, unit), None)
        if isinstance(found, DamagedFileError):
            self.damaged[step.name, unit] = found
            return None
        return found

    def refresh(self, step: Step, unit: int) -> None:
        """Forget cached answers after the unit's file was written."""
        self._footers[step.name].pop(unit, None)
        self._forget(step, unit)

    @without_collector()
    def scan(self) -> None:
        """Load all current footers, with one listing per stage.

        A footer is read only if its file's stamp differs from the last scan and from ``footers.parquet``.
        After many reads, that cache is written again.
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
            with suppress(OSError):  # the run can belong to another user and be read-only
                cache(self.folder.footers, self._known, done, self.plan.digest, self._basis())

    def _basis(self) -> str:
        """Everything besides the footers that decides which files are done."""
        return repr([self.plan.digest, *self.steps.values()])

    def _scan_step(self, step: Step, known: Known) -> int:
        """Load a step's footers and add those to cache to ``known``. Returns how many were read."""
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
        """Drop cached answers that depend on the unit's file, in its step and in later steps."""
        self._all = {}
        steps = list(self.steps.values())
        parts: Iterable[int] | None = step.parts(unit, self.plan.parts)
        for later in steps[steps.index(step) :]:
            if later.wide and later is not step:
                parts = None  # drop all at once: this runs for every file that is written
            if parts is None:
                self._done[later.name].clear()
                continue
            for number in later.units(parts):
                self._done[later.name].pop(number, None)

    def readable(self, step: Step, unit: int) -> list[int]:
        """The parts of a unit that are done upstream, so that the step can read them."""
        if step.previous is None:
            return list(step.parts(unit, self.plan.parts))
        done = self._done[step.previous]
        if not step.publishes:  # the common case, asked for every file of a run
            return [unit] if done[unit] else []
        return [part for part in step.parts(unit, self.plan.parts) if done[part]]

    def all_readable(self, step: Step) -> list[int]:
        """All parts of the run that are done upstream."""
        return [
            part for unit in range(step.unit_count(self.plan.parts)) for part in self.readable(step, unit)
        ]

    def inputs(self, step: Step, parts: Sequence[int]) -> dict[str, str]:
        """Current digests of the step's inputs; ``parts`` must be readable."""
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
        """One digest over all done files of a step."""
        if step.name not in self._all:
            there = [
                (unit, footer.digest)
                for unit in range(step.unit_count(self.plan.parts))
                if self.done(step, unit) and (footer := self.footer(step, unit))
            ]
            self._all[step.name] = hashlib.blake2b(repr(there).encode(), digest_size=16).hexdigest()
        return self._all[step.name]

    def done(self, step: Step, unit: int) -> bool:
        """Whether the unit's file exists and is up to date with everything upstream."""
        return self._done[step.name][unit]

    def _is_done(self, step: Step, unit: int) -> bool:
        footer = self.footer(step, unit)
        if footer is None or footer.fingerprint != step.fingerprint:
            return False
        parts = self.readable(step, unit)
        return bool(parts) and footer.inputs == digest_of_inputs(self.inputs(step, parts))

    def given(self, step: Step, parts: Sequence[int]) -> int:
        """Rows given to the step from readable ``parts``."""
        if step.previous is None:
            return sum(self.plan.part_rows[part] for part in parts)
        return sum(
            footer.total(given.status, given.final)
            for given in step.rows_of
            for part in parts
            if (footer := self.footer(self.steps[given.step], part))
        )
