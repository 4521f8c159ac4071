"""The fit: a logistic regression in which tasks share their slopes unless verdicts say otherwise.

The slope of piece j of metric m in task t is w[t,m,j], with the penalty

    sum_m v[m]^2 / (2 s^2)  +  sum_{t,m,j} (w[t,m,j] - v[m])^2 / (2 (s/2)^2)  +  sum_t d[t]^2 / 2

for slopes v[m] shared by all tasks and deviations d[t] of the tasks' intercepts (a hierarchical ridge
regression, Gelman & Hill 2007, chapter 14). A metric's sense bounds the sign of v and w. The loss is convex.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.calibration.curves import Hinges
from pipeline.calibration.examples import Examples
from stages.score.metrics import METRICS

DEVIATION = 0.5
"""Expected deviation of a slope from the shared one, as a share of the expected size of the shared one."""
_SIGNS = {"more": (0.0, None), "less": (None, 0.0), "unknown": (None, None)}


@dataclass(frozen=True, eq=False)
class Fit:
    """Intercept and slopes by task; the slopes of each metric [pieces] in the order of the task's hinges."""

    intercepts: Mapping[str, float]
    slopes: Mapping[str, Sequence[np.ndarray]]

    def log_odds(self, task: str, hinges: Sequence[Hinges], values: np.ndarray) -> np.ndarray:
        """Log-odds [n] of "right" for values [n,m] of a task's metrics."""
        total = np.full(len(values), self.intercepts[task])
        for place, (of_metric, slopes) in enumerate(zip(hinges, self.slopes[task], strict=True)):
            total += of_metric.columns(values[:, place]) @ slopes
        return total


def fit(examples: Mapping[str, Examples], hinges: Mapping[str, Sequence[Hinges]], size: float) -> Fit:
    """Fit all tasks together.

    Args:
        examples, hinges: by task.
        size: s, the expected size of a shared slope, in log-odds per spread of its metric.
    """
    layout = _Layout(hinges)
    blocks = [
        (
            layout.own[task],
            np.hstack([h.columns(found.values[:, k]) for k, h in enumerate(hinges[task])])
            if hinges[task]
            else np.zeros((len(found.right), 0)),
            found.right.astype(float),
            found.weights,
        )
        for task, found in examples.items()
    ]

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = layout.penalty(theta, size)
        for number, (own, columns, right, weights) in enumerate(blocks):
            odds = theta[0] + theta[1 + number] + columns @ theta[own]
            value += float(weights @ (np.logaddexp(0, odds) - right * odds))
            slack = weights * (expit(odds) - right)
            gradient[0] += slack.sum()
            gradient[1 + number] += slack.sum()
            gradient[own] += columns.T @ slack
        return value, gradient

    found = minimize(
        loss,
        np.zeros(layout.length),
        jac=True,
        method="L-BFGS-B",
        bounds=layout.signs,
        options={"maxiter": 2000, "ftol": 1e-8, "gtol": 1e-5},
    ).x
    return Fit(
        {task: float(found[0] + found[1 + number]) for number, task in enumerate(hinges)},
        {
            task: np.split(found[layout.own[task]], np.cumsum([h.pieces for h in hinges[task]])[:-1])
            if hinges[task]
            else []
            for task in hinges
        },
    )


class _Layout:
    """Places of the parameters: intercept, its deviation by task, shared slopes, slopes by task."""

    def __init__(self, hinges: Mapping[str, Sequence[Hinges]]) -> None:
        metrics = sorted({h.metric for of_task in hinges.values() for h in of_task})
        start = 1 + len(hinges)
        shared = {metric: start + place for place, metric in enumerate(metrics)}
        self.shared = np.arange(start, start + len(metrics))
        parents: list[int] = []
        self.own: dict[str, slice] = {}
        begin = start + len(metrics)
        for task, of_task in hinges.items():
            before = len(parents)
            parents += [shared[h.metric] for h in of_task for _ in range(h.pieces)]
            self.own[task] = slice(begin + before, begin + len(parents))
        self.parents = np.array(parents, int)
        self.slopes = slice(begin, begin + len(parents))
        self.tasks = slice(1, start)
        self.length = begin + len(parents)
        names = {place: metric for metric, place in shared.items()}
        senses = [METRICS[names[place]].sense for place in [*self.shared.tolist(), *parents]]
        self.signs = [(None, None)] * start + [_SIGNS[sense] for sense in senses]

    def penalty(self, theta: np.ndarray, size: float) -> tuple[float, np.ndarray]:
        gradient = np.zeros(self.length)
        gradient[self.tasks] = theta[self.tasks]
        gradient[self.shared] = theta[self.shared] / size**2
        apart = (theta[self.slopes] - theta[self.parents]) / (DEVIATION * size) ** 2
        gradient[self.slopes] = apart
        np.add.at(gradient, self.parents, -apart)
        value = (
            theta[self.tasks] @ theta[self.tasks] / 2
            + theta[self.shared] @ theta[self.shared] / (2 * size**2)
            + apart @ apart * (DEVIATION * size) ** 2 / 2
        )
        return float(value), gradient
