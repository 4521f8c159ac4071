"""Quotas: the largest set of rows in which no task exceeds its share."""

from collections.abc import Mapping


def quotas(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """The number of rows to keep of each task, so that no task exceeds its share of all kept rows.

    Removing rows of one task reduces the total, and so what the other tasks may keep. The result is the
    largest set of numbers that is consistent. A task without a share keeps all its rows.

    Args:
        counts: rows by task.
        shares: largest share by task, in (0,1].
    """
    stay = dict(counts)
    while True:
        total = sum(stay.values())
        # The small number corrects rounding of exact products: .3 * 10 is less than 3 in floating point.
        fewer = {task: min(number, int(shares.get(task, 1) * total + 1e-9)) for task, number in stay.items()}
        if fewer == stay:
            return stay
        stay = fewer
