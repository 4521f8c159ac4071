"""Estimates from verdicts: how many kept rows are right, and how many right rows are kept.

A row that the filter kept is *right* if its chosen candidate is right. It *could be kept* if any of its
candidates is right. Precision is the share of right rows among kept rows; recall is the share of kept right
rows among the rows that could be kept. Rows without a clear verdict (``unsure``, a tie) do not count.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.verdicts.population import Reviewable
from pipeline.verdicts.verdict import Key, Verdict, agreed

Z = 1.96
"""Standard normal quantile of a 95 % interval."""
RowKey = tuple[str, int]
"""Id and turn of a row."""


@dataclass(frozen=True)
class Share:
    """An estimated share with its 95 % interval; None if no row tells."""

    value: float | None
    low: float
    high: float
    rows: int
    """Number of judged rows that the share is of."""

    def __str__(self) -> str:
        if self.value is None:
            return "not known"
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Estimate:
    """Precision and recall of the filter's decisions about some rows."""

    judged: int
    precision: Share
    recall: Share


@dataclass(frozen=True)
class Known:
    """A judged row: what is known of it, and how many rows it stands for."""

    row: Reviewable
    right: tuple[bool | None, ...]
    """By candidate; None: no verdict, or no clear one."""
    weight: float

    @property
    def got(self) -> bool | None:
        """Whether it was kept and is right; None if that is not known."""
        return False if self.row.choice is None else self.right[self.row.choice]

    @property
    def possible(self) -> bool | None:
        """Whether any of its candidates is right; None if that is not known."""
        if any(self.right):
            return True
        return None if None in self.right else False


def known_rows(population: Sequence[Reviewable], verdicts: Sequence[Verdict]) -> list[Known]:
    """The rows of ``population`` that have a verdict, with their weights.

    Verdicts about pictures that were drawn anew since are left out (:func:`current`).

    A row stands for ``stratum_rows / judged rows of the stratum``. Draws from different strata, made before
    and after a change of the filter, are averaged in proportion to their rows. At last the weights of each
    task's kept, and rejected, rows are scaled to the number of these rows in the run. For verdicts that come
    from a file without strata this is the only weighting: then such rows must be a random draw.
    """
    by_row: dict[RowKey, list[Verdict]] = defaultdict(list)
    for verdict in current(population, verdicts):
        by_row[verdict.id, verdict.turn].append(verdict)
    judged = [row for row in population if (row.id, row.turn) in by_row]
    drawn = [_drawn(by_row[row.id, row.turn]) for row in judged]
    weights = _scaled(judged, _base_weights(drawn), population)
    known = []
    for row, weight in zip(judged, weights, strict=True):
        clear = agreed(by_row[row.id, row.turn])
        right = tuple(clear.get(Key(row.id, row.turn, k)) for k in range(len(row.scores)))
        known.append(Known(row, right, weight))
    return known


def current(population: Sequence[Reviewable], verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts about pictures that ``population`` still has, by the hashes that a verdict names."""
    rows = {(row.id, row.turn): row for row in population}
    found = []
    for verdict in verdicts:
        row = rows.get((verdict.id, verdict.turn))
        if row is None or verdict.candidate >= len(row.scores):
            continue
        there = (row.anchor_hash, row.candidate_hashes[verdict.candidate])
        if verdict.anchor_hash is None or there == (verdict.anchor_hash, verdict.candidate_hash):
            found.append(verdict)
    return found


def _drawn(verdicts: Sequence[Verdict]) -> tuple[str, str, int]:
    """Design, stratum and the stratum's rows by which a row was drawn first; a row of a file has none."""
    first = min(verdicts, key=lambda verdict: (not verdict.stratum, verdict.when))
    return first.design, first.stratum, first.stratum_rows or 1


def _base_weights(drawn: Sequence[tuple[str, str, int]]) -> list[float]:
    in_stratum, in_design = Counter(drawn), Counter(design for design, *_ in drawn)
    return [
        place[2] / in_stratum[place] * in_design[place[0]] / len(drawn) if place[1] else 1.0
        for place in drawn
    ]


def _scaled(
    judged: Sequence[Reviewable], weights: Sequence[float], population: Sequence[Reviewable]
) -> list[float]:
    there = Counter((row.task, row.kept) for row in population)
    sums: dict[tuple[str, bool], float] = defaultdict(float)
    for row, weight in zip(judged, weights, strict=True):
        sums[row.task, row.kept] += weight
    totals = [(there[row.task, row.kept], sums[row.task, row.kept]) for row in judged]
    return [weight * rows / judged_sum for weight, (rows, judged_sum) in zip(weights, totals, strict=True)]


def estimate(known: Iterable[Known]) -> Estimate:
    """Precision and recall over some rows."""
    rows = list(known)
    clear = [row for row in rows if row.got is not None]
    precision = share([(row.got is True, row.weight) for row in clear if row.row.kept])
    recall = share([(row.got is True, row.weight) for row in clear if row.possible])
    return Estimate(len(rows), precision, recall)


def by_task(known: Iterable[Known]) -> dict[str, Estimate]:
    tasks: dict[str, list[Known]] = defaultdict(list)
    for row in known:
        tasks[row.row.task].append(row)
    return {task: estimate(rows) for task, rows in sorted(tasks.items())}


def share(outcomes: Sequence[tuple[bool, float]]) -> Share:
    """A weighted share with Wilson's interval (Wilson 1927) for the effective number of rows (Kish 1965).

    The interval is for further rows of the same kind, so it does not shrink to nothing when every row of
    the run is judged.

    Args:
        outcomes: for each row whether it counts, and its weight.
    """
    total = sum(weight for _, weight in outcomes)
    if not total:
        return Share(None, 0.0, 1.0, 0)
    p = sum(weight for hit, weight in outcomes if hit) / total
    n = total**2 / sum(weight**2 for _, weight in outcomes)
    low, high = wilson(p, n)
    return Share(p, low, high, len(outcomes))


def wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share ``p`` of ``n`` independent rows."""
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def rows_for(p: float, half: float) -> int:
    """Number of independent rows by which a share near ``p`` is known to within ``half``, at least 0.005."""
    for n in itertools.count(1):
        low, high = wilson(p, n)
        if high - low <= 2 * max(half, 0.005):
            return n
    raise AssertionError


def rows_left(known: Mapping[str, Estimate], half: float) -> dict[str, int]:
    """By task, about how many more kept rows must be judged until precision is known to within ``half``."""
    left = {}
    for task, found in known.items():
        value = found.precision.value if found.precision.value is not None else 0.9
        left[task] = max(0, rows_for(value, half) - found.precision.rows)
    return left
