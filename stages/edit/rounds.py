"""The candidates of later rounds: other mask policies and other gates than in the round before.

Every candidate of a task has a number. The first round's candidates come first, then the second round's, and
so on. A row's ``candidate`` is this number, so a later turn can draw it again without knowing its round.

A row whose edits are cheap (:mod:`stages.edit.row_candidates`) draws further candidates in the same round,
those of the rounds that follow. Their numbers come after its round's own. Other rows leave these numbers out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.candidate import Candidate, Policy
from stages.edit.prompt_to_prompt.windows import check_gates, idle_gate, with_candidates
from stages.tasks import Tasks

SCALES = (1.25, 0.75)
"""Factors on the gates in round 2, 3, 4, ..., in turn. Longer gates keep an edit closer to its source."""
OTHER_MASK: Mapping[Policy, Policy] = {
    "soft": "smooth",
    "smooth": "precise",
    "precise": "soft",
    "box": "soft",
    "none": "none",
}
"""The mask policy of the next round."""
FOLLOWING = 6
"""Rounds whose candidates a cheap row may draw; after so many, masks and gates repeat."""


class RoundCandidates:
    """The candidates of every task in every round."""

    def __init__(
        self,
        tasks: Tasks,
        candidates: Mapping[str, Sequence[Candidate]],
        rounds: Mapping[str, Sequence[Sequence[Candidate]]],
        steps: int,
        cheap: int = 1,
    ) -> None:
        """Check and store the candidates.

        Args:
            tasks: the run's tasks.
            candidates: by task, candidates of the first round that replace the task file's.
            rounds: by task, the candidates of round 2, 3, ... The last list serves all further rounds. Other
                tasks vary the first round's candidates (:func:`varied`).
            steps: number of sampling steps.
            cheap: a row whose edits are cheap draws so many, if its task has fewer.

        Raises:
            ValueError: there is no such task, a candidate does not fit its task, or a gate is in no step.
        """
        self._steps, self._cheap = steps, cheap
        self._stated = [with_candidates(tasks, candidates, "edit.candidates")]
        for number in range(max(map(len, rounds.values()), default=0)):
            of_round = {name: lists[min(number, len(lists) - 1)] for name, lists in rounds.items()}
            self._stated.append(with_candidates(self._stated[0], of_round, "edit.rounds"))
        for stated in self._stated:
            check_gates(steps, stated)
        self._named = frozenset(rounds)

    @property
    def first(self) -> Tasks:
        """The tasks with the candidates of the first round."""
        return self._stated[0]

    def stated(self) -> Iterator[Candidate]:
        """All candidates of the first round and of the manifest's later rounds."""
        return (candidate for _, candidate in self.stated_by_task())

    def stated_by_task(self) -> Iterator[tuple[str, Candidate]]:
        """The same, each with its task's name."""
        for tasks in self._stated:
            for name, task in tasks.items():
                yield from ((name, candidate) for candidate in task.candidates)

    def of(self, task: str, round: int) -> tuple[Candidate, ...]:
        """A task's candidates in a round, counted from 1."""
        if round == 1 or task in self._named:
            return self._stated[min(round, len(self._stated)) - 1][task].candidates
        return tuple(varied(candidate, round, self._steps) for candidate in self.first[task].candidates)

    def further(self, task: str, round: int) -> tuple[Candidate, ...]:
        """The candidates that a cheap row draws besides a round's own. None has LocalBlend."""
        own = self.of(task, round)
        if len(own) >= self._cheap:
            return ()
        found = list(own)
        for later in range(round + 1, round + 1 + FOLLOWING):
            found += [each for each in self.of(task, later) if each not in found and each.blend is None]
        return tuple(found[len(own) : self._cheap])

    def before(self, task: str, round: int) -> int:
        """The number of a task's first candidate in a round."""
        return sum(len(self._all(task, earlier)) for earlier in range(1, round))

    def numbered(self, task: str, number: int) -> Candidate:
        """A candidate of a task by its number."""
        round = 1
        while number >= len(candidates := self._all(task, round)):
            number, round = number - len(candidates), round + 1
        return candidates[number]

    def most(self, round: int, *, cheap: bool) -> int:
        """The largest number of candidates of any task in a round, of rows that may be cheap or are not."""
        count = self._all if cheap else self.of
        return max((len(count(name, round)) for name in self.first), default=0)

    def _all(self, task: str, round: int) -> tuple[Candidate, ...]:
        return self.of(task, round) + self.further(task, round)


def varied(candidate: Candidate, round: int, steps: int) -> Candidate:
    """A candidate of the first round, as it is drawn in a later one: another mask policy, scaled gates.

    A gate keeps its length if the scaled one would be open in no step.
    """
    scale, mask = SCALES[round % len(SCALES)], candidate.mask
    for _ in range(round - 1):
        mask = OTHER_MASK[mask]
    changed = candidate.model_copy(update={"mask": mask})
    for changes in _scaled(candidate, scale, steps):
        tried = changed.model_copy(update=changes)
        opens = tried.changed_until is None or not 0 < tried.changed_until <= tried.cross_from
        if opens and not idle_gate(tried, steps):
            changed = tried
    return changed


def _scaled(candidate: Candidate, scale: float, steps: int) -> Iterator[dict[str, Any]]:
    """The changes of one gate after the other."""
    for key in ("cross_until", "self_until", "changed_until"):
        if until := getattr(candidate, key):
            yield {key: min(1.0, until * scale)}
    for key in ("cross_steps", "self_steps"):
        if count := getattr(candidate, key):
            yield {key: min(steps, max(1, int(count * scale + 0.5)))}
    if candidate.strength is not None:
        yield {"strength": tuple(min(1.0, end * scale) for end in candidate.strength)}
