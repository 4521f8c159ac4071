"""Agreement between people who judged the same candidates."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from pipeline.verdicts.verdict import Key, Verdict


@dataclass(frozen=True)
class Agreement:
    """Two people's clear verdicts (right or wrong) about the same candidates."""

    people: tuple[str, str]
    both: int
    """Candidates that both have judged."""
    equal: int
    kappa: float | None
    """Cohen's kappa (Cohen 1960): 1 full agreement, 0 that of chance; None if both always say the same."""

    def __str__(self) -> str:
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return f"{self.people[0]} and {self.people[1]}: {self.equal} of {self.both} equal{kappa}"


def agreements(verdicts: Iterable[Verdict]) -> list[Agreement]:
    """The agreement of each pair of people who have judged a candidate in common."""
    said: dict[str, dict[Key, bool]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.verdict != "unsure":
            said[verdict.who][verdict.key] = verdict.verdict == "right"
    found = []
    for one, other in combinations(sorted(said), 2):
        pairs = [(said[one][key], said[other][key]) for key in sorted(said[one].keys() & said[other].keys())]
        if pairs:
            found.append(_agreement((one, other), pairs))
    return found


def _agreement(people: tuple[str, str], pairs: list[tuple[bool, bool]]) -> Agreement:
    both, equal = len(pairs), sum(a == b for a, b in pairs)
    right = [sum(pair[side] for pair in pairs) / both for side in (0, 1)]
    chance = right[0] * right[1] + (1 - right[0]) * (1 - right[1])
    kappa = None if chance == 1 else (equal / both - chance) / (1 - chance)
    return Agreement(people, both, equal, kappa)
