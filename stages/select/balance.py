"""Quotas: the largest set of rows in which no task has more than its share."""

from collections.abc import Mapping


def quotas(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """How many rows of each task stay, so that a task has at most its share of those that stay.

    Taking less of one task makes the others' shares smaller sets too, so this goes down to the greatest
    numbers that hold together. A task without a share keeps all its rows.

    Args:
        counts: rows by task.
        shares: greatest share by task, in (0,1].
    """
    stay = dict(counts)
    while True:
        total = sum(stay.values())
        # The small number undoes the rounding of products that are whole: .3 * 10 is less than 3.
        fewer = {task: min(number, int(shares.get(task, 1) * total + 1e-9)) for task, number in stay.items()}
        if fewer == stay:
            return stay
        stay = fewer
