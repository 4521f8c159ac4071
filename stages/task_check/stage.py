"""The task_check stage: a predictor checks the task of each instruction, and may change it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import pyarrow as pa
from pydantic import Field

from stages.base import Decision, Stage, StageConfig, Weights, failed, kept, to_table
from stages.finite import NotFiniteError
from stages.tasks import Tasks


class TaskPredictor(Protocol):
    """Predicts the task of an instruction."""

    def predict(self, instructions: Sequence[str], batch: int) -> list[Mapping[str, float]]:
        """For each instruction, probabilities by task name; empty if it cannot be read completely."""
        ...


class TaskCheckConfig(StageConfig):
    """The manifest's section ``task_check``. Without a ``predictor`` every row keeps its task."""

    predictor: Weights | None = Field(
        None, description="a sequence classifier of transformers; its labels are task names"
    )
    confidence: float = Field(0.9, gt=0.5, le=1, description="least probability for moving a row")
    max_tokens: int = Field(
        64, ge=8, le=512, description="longest instruction in tokens; longer ones are cut"
    )


class TaskCheck(Stage[TaskCheckConfig]):
    """Writes each row's task after the check, as Emu Edit's filter does (Sheynin et al. 2023).

    A row is moved if the predictor gives another task of the run at least ``confidence``. The planned task is
    kept as well. Only the label moves: the pair is drawn and filtered by its planned task.
    """

    version: ClassVar[int] = 2
    reads: ClassVar[Mapping[str, Sequence[str]]] = {"plan": ["task"], "instruct": ["instruction"]}
    task_keys: ClassVar[Sequence[str]] = ("index",)
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("checked_task", pa.string()),
            ("predicted_task", pa.string()),
            ("prediction_confidence", pa.float32()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = TaskCheckConfig

    def __init__(
        self,
        config: TaskCheckConfig,
        tasks: Tasks,
        predictor: TaskPredictor | None = None,
        *,
        turn: int = 1,
    ) -> None:
        """Use ``predictor``, or load the one named in ``config``."""
        super().__init__(config, tasks, turn=turn)
        self.predictor = predictor
        if predictor is None and config.predictor is not None:
            from stages.models.classifier import SequenceClassifier

            classifier = SequenceClassifier(config.predictor, config.max_tokens)
            tasks.check_known(classifier.labels, "task_check.predictor")
            self.predictor = classifier

    @classmethod
    def problems(cls, config: TaskCheckConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.tokenizer_files import check_tokenizer
        from stages.models.weight_files import of_transformers, problems_of, read_json

        def check(folder: Path) -> None:
            of_transformers("a sequence classifier", ("ForSequenceClassification",), check_tokenizer)(folder)
            labels = read_json(folder / "config.json").get("id2label", {})
            tasks.check_known(map(str, labels.values()), "its labels")

        if config.predictor is not None:
            yield from problems_of("task_check.predictor", config.predictor, check)

    def __call__(self, rows: pa.Table) -> pa.Table:
        planned, instructions = rows["task"].to_pylist(), rows["instruction"].to_pylist()
        if self.predictor is None:
            decisions = [kept(checked_task=task) for task in planned]
        else:
            predictions = self.predictor.predict(instructions, self.config.batch)
            decisions = [self._decide(*row) for row in zip(planned, predictions, strict=True)]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _decide(self, planned: str, probabilities: Mapping[str, float]) -> Decision:
        if not probabilities:
            return kept(checked_task=planned)
        if not all(map(math.isfinite, probabilities.values())):
            return failed(NotFiniteError("task_check", "the predictor's output"))
        predicted = max(probabilities, key=lambda name: probabilities[name])
        sure = probabilities[predicted] >= self.config.confidence
        return kept(
            checked_task=predicted if sure and predicted in self.tasks else planned,
            predicted_task=predicted,
            prediction_confidence=probabilities[predicted],
        )
