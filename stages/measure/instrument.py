"""What the instruments of the measure stage share."""

from collections.abc import Sequence
from typing import Protocol

from stages.score.evidence import Row
from stages.score.metric import Scores

Values = list[list[Scores]]
"""The metrics of each candidate of each row."""


class Instrument(Protocol):
    """Measures some metrics of the stage."""

    def measure(self, rows: Sequence[Row], batch: int) -> Values:
        """The values of its metrics for each candidate of a batch of rows.

        A metric is left out where it cannot be measured, or does not suit the row's task.
        """
        ...


def suits(row: Row, metric: str) -> bool:
    """Whether a metric suits the task of a row."""
    from stages.score.metrics import METRICS

    return not METRICS[metric].unsuited(row.task)
