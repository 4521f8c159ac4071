"""Repeating the drawing stages of a turn: the rows that a round rejects are given to the next round.

``edit.r2`` is the same stage as ``edit``, but it reads from ``mask.r2`` instead of ``mask``, and its rows are
those that the first round rejected. The stages after the rounds are given the rows that any round kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages.base import Stage
from stages.placed import Given, Later, PlacedStage, step_name
from stages.publisher import Publisher

SEED = "seed"
"""The column of the plan that each round has anew."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of one turn."""

    turn: int
    count: int
    """Number of rounds, at least 1."""
    names: tuple[str, ...]
    """The repeated stages, in order. A row that the last of them keeps leaves the rounds."""
    begins: str
    """The stage that begins a later round. It may be one of ``names``."""
    plan: str
    """The step that has the rows' seeds in the first round."""

    def unroll(self, turn: Sequence[PlacedStage], begin: type[Stage[Any]]) -> list[PlacedStage]:
        """The stages of the turn, with the rounds written out.

        Args:
            turn: the stages of one round, in order.
            begin: the class of the stage that begins a later round. It is given what the round before
                rejected, and writes ``seed`` and ``round`` besides its other columns.
        """
        if self.count == 1:
            return list(turn)
        end = [placed.name for placed in turn].index(self.names[-1]) + 1
        repeated = [placed for placed in turn if placed.name in self.names]
        unrolled = list(turn[:end])
        for round in range(2, self.count + 1):
            unrolled.append(self._begin(begin, round, repeated))
            unrolled += [self._again(placed, round) for placed in repeated if placed.name != self.begins]
        given: tuple[Given, ...] = tuple(Given(step, "kept") for step in self._steps(self.names[-1]))
        for placed in turn[end:]:
            unrolled.append(replace(self.after(placed), given=given))
            if not issubclass(placed.stage, Publisher):
                given = ()
        return unrolled

    def after(self, placed: PlacedStage) -> PlacedStage:
        """A stage after the rounds, which reads each row as the round that kept it has drawn it."""
        later = [
            Later(step, tuple(columns), self._steps(name)[1:])
            for name in self.names
            if (columns := placed.reads.get(step := self._step(name, 1)))
        ]
        if SEED in placed.reads.get(self.plan, ()):
            later.append(Later(self.plan, (SEED,), self._steps(self.begins)[1:]))
        return replace(placed, later=tuple(later)) if self.count > 1 else placed

    def _begin(self, begin: type[Stage[Any]], round: int, repeated: Sequence[PlacedStage]) -> PlacedStage:
        """The stage that begins a round. Its seed comes from the seed of the round before."""
        named = {
            self.plan if name == "plan" else step_name(name, self.turn): columns
            for name, columns in begin.reads.items()
        }
        given = tuple(
            Given(self._step(placed.name, round - 1), "rejected", tuple(placed.stage.final))
            for placed in repeated
            if placed.name != self.begins
        )
        reads = self._reads(named, round - 1, counted=True)
        return PlacedStage(self.begins, begin, self.turn, reads, round, given)

    def _again(self, placed: PlacedStage, round: int) -> PlacedStage:
        """A repeated stage in a later round."""
        return replace(placed, reads=self._reads(placed.reads, round, placed.stage.redraws), round=round)

    def _reads(
        self, reads: Mapping[str, Sequence[str]], round: int, counted: bool
    ) -> Mapping[str, Sequence[str]]:
        """What is read in the first round, as it is read in another one.

        Args:
            counted: whether the number of the round is read too.
        """
        if round == 1:
            return reads
        repeated = {self._step(name, 1): self._step(name, round) for name in self.names}
        begun = self._step(self.begins, round)
        found: dict[str, list[str]] = {}
        for step, columns in reads.items():
            fresh = step == self.plan and SEED in columns
            if others := [name for name in columns if not fresh or name != SEED]:
                found.setdefault(repeated.get(step, step), []).extend(others)
            if fresh:
                found.setdefault(begun, []).append(SEED)
        if counted:
            found.setdefault(begun, []).append("round")
        return found

    def _step(self, name: str, round: int) -> str:
        return step_name(name, self.turn, round)

    def _steps(self, name: str) -> tuple[str, ...]:
        return tuple(self._step(name, round) for round in range(1, self.count + 1))
