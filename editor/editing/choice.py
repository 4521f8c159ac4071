"""Choosing the task of an instruction: as told, or by the task predictor (Emu Edit, section 4.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

from editor.model.task_table import TaskTable
from pipeline.errors import UserError
from stages.base import Weights
from stages.models.classifier import SequenceClassifier

SURE = 0.9
"""Least probability of a sure prediction; the same as in the pipeline's task check."""
_MAX_TOKENS = 64


@dataclass(frozen=True)
class Choice:
    """A chosen task. ``probability`` is None if the task was told."""

    task: str
    probability: float | None = None
    second: str | None = None
    """The next likely task of a prediction that is not sure."""

    @property
    def sure(self) -> bool:
        return self.second is None

    def told(self) -> str:
        """The choice in words."""
        if self.probability is None:
            return self.task
        unsure = "" if self.sure else f", unsure: it could be {self.second}; --task chooses another"
        return f"{self.task} (predicted, {self.probability:.2f}{unsure})"


class TaskChooser:
    """Chooses rows of a task table. Without a predictor, every task must be told."""

    def __init__(self, table: TaskTable, predictor: Weights | None) -> None:
        self.table = table
        self._predictor = None if predictor is None else SequenceClassifier(predictor, _MAX_TOKENS)

    def __call__(self, instruction: str, task: str | None = None) -> Choice:
        """Choose the task of an instruction.

        Raises:
            UserError: the task is unknown, or the predictor cannot read the instruction.
        """
        if task is not None:
            self._check(task, "--task")
            return Choice(task)
        if self._predictor is None:
            raise UserError(
                f"this editor has no task predictor: name the task (--task); {self.table.listed()}"
            )
        (probabilities,) = self._predictor.predict([instruction], 1)
        if not probabilities:
            raise UserError(
                f"the task predictor does not know all words of {instruction!r}: name the task (--task); "
                + self.table.listed()
            )
        return self._predicted(instruction, probabilities)

    def _predicted(self, instruction: str, probabilities: Mapping[str, float]) -> Choice:
        first, *others = sorted(probabilities, key=lambda name: -probabilities[name])
        self._check(first, f"{instruction!r}: the task predictor says {first}")
        sure = probabilities[first] >= SURE or not others
        return Choice(first, probabilities[first], None if sure else others[0])

    def _check(self, task: str, key: str) -> None:
        try:
            self.table.row(task)
        except ValueError as error:
            raise UserError(f"{key}: {error}") from error
