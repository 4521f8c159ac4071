"""From log-odds to decisions: recalibration, and the least probability for a wanted precision."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

SLACK = 0.05
"""No row is kept that is less likely right than the wanted precision by more than this.

Otherwise a task of few wrong candidates would keep them all, and any fault with them."""
PRIOR = 0.5
"""Standard deviation of offset and factor around 0 and 1: few verdicts hardly move them."""


def recalibrate(odds: np.ndarray, right: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Platt's scaling (Platt 1999): offset and factor that fit log-odds to verdicts about held-out examples.

    Args:
        odds: float [n], by fits that had not seen the examples.
        right: bool [n].
        weights: float [n].
    """

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = theta[0] + theta[1] * odds
        slack = weights * (expit(scaled) - right)
        apart = theta - [0, 1]
        value = log_loss(scaled, right, weights) + apart @ apart / (2 * PRIOR**2)
        return value, np.array([slack.sum(), slack @ odds]) + apart / PRIOR**2

    limits = [(None, None), (0, None)]
    offset, factor = minimize(loss, np.array([0.0, 1.0]), jac=True, method="L-BFGS-B", bounds=limits).x
    return float(offset), float(factor)


def log_loss(odds: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """The weighted sum of minus the log-likelihood of verdicts, given log-odds."""
    return float(weights @ (np.logaddexp(0, odds) - right * odds))


def least_probability(
    probabilities: Sequence[float], weights: Sequence[float], precision: float
) -> float | None:
    """The lowest threshold above which rows are right with the wanted probability on average.

    Args:
        probabilities: of each row's best candidate, by fits that had not seen it.
        weights: of the rows.
        precision: wanted, in [0,1].

    Returns:
        a threshold between two rows, at least ``precision - SLACK``; None if no threshold is high enough.
    """
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    best, weight = np.asarray(probabilities)[order], np.asarray(weights)[order]
    enough = np.cumsum(best * weight) >= precision * np.cumsum(weight)
    # Rows of equal probability are kept together or not at all.
    enough &= np.append(np.diff(best) < 0, True)
    if not enough.any():
        return None
    last = int(np.flatnonzero(enough)[-1])
    following = float(best[last + 1]) if last + 1 < len(best) else 0.0
    return max(precision - SLACK, (float(best[last]) + following) / 2)
