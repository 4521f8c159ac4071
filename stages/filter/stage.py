"""The filter stage: thresholds on the scores, and the choice of one candidate per row. It needs no model.

The bounds of a metric come from the task file, then the manifest's ``filter.default``, then
``filter.tasks.<task>``. A later source replaces only the sides (min, max) that it states. A calibrated
``filter.model`` replaces the bounds of the metrics that it knows, but not those of guards (``Metric.guard``).
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from stages.base import Decision, Stage, StageConfig, failed, kept, rejected, to_table
from stages.filter.model import FilterModel, TaskModel, model_of
from stages.score.metric import Scores
from stages.score.metrics import JUDGED, METRICS, SCORE_COLUMNS, check_bounds, metrics_of, scores_of
from stages.tasks import Bounds, Task, Tasks, Threshold


class FilterConfig(StageConfig):
    """The manifest's section ``filter``. A bare number is a lower bound."""

    default: Mapping[str, Threshold] = Field(default={}, description="bounds by metric, for every task")
    tasks: Mapping[str, Mapping[str, Threshold]] = Field(
        default={}, description="bounds by task and metric; ignored for tasks outside the mixture"
    )
    model: Annotated[FilterModel | None, BeforeValidator(model_of)] = Field(
        default=None, description="a file written by editpairs calibrate, or its content"
    )

    digested: ClassVar[frozenset[str]] = frozenset({"model"})

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        sections = {"filter.default": self.default}
        sections |= {f"filter.tasks.{task}": bounds for task, bounds in self.tasks.items()}
        for key, bounds in sections.items():
            check_bounds(bounds, key)
        return self


class Filter(Stage[FilterConfig]):
    """Chooses a candidate of each row, or rejects the row with ``<metric>_low``, ``_high`` or ``_missing``.

    ``choice`` is the candidate within all bounds with the highest rank (:func:`choose`). ``rank`` is its
    ``clip_direction``. In a task of ``filter.model`` it is the probability that the candidate is right, and a
    row is also rejected as ``calibrated_low``. The hashes of the pictures are passed on to the select stage.
    """

    version: ClassVar[int] = 3
    light: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task"],
        "score": [SCORE_COLUMNS["score"], "anchor_hash", "candidate_hashes"],
    }
    task_keys: ClassVar[Sequence[str]] = ("metrics", "thresholds")
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("choice", pa.int32()),
            ("rank", pa.float32()),
            ("anchor_hash", pa.int64()),
            ("target_hash", pa.int64()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = FilterConfig

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        return JudgedFilter if "judge" in stages else cls

    def __init__(self, config: FilterConfig, tasks: Tasks, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        tasks.check_known(config.tasks, "filter.tasks")
        self.models = {} if config.model is None else config.model.tasks
        tasks.check_known(self.models, "filter.model.tasks")
        for name, bounds in config.tasks.items():
            if name not in tasks:
                continue
            for metric in bounds:
                if METRICS[metric] not in metrics_of(tasks[name]):
                    raise ValueError(
                        f"filter.tasks.{name}.{metric}: the task does not compute this metric; "
                        f"add it to 'metrics' in prompts/{name}.yaml"
                    )
        for name, model in self.models.items():
            for metric in {*model.curves, *model.bounds} if name in tasks else ():
                if metric not in tasks[name].metrics:
                    raise ValueError(
                        f"filter.model.tasks.{name}: the task does not compute the metric {metric}; "
                        f"calibrate again, or add it to 'metrics' in prompts/{name}.yaml"
                    )
        self.bounds = {task.name: resolve_bounds(task, config) for task in tasks.values()}
        for name, resolved in self.bounds.items():
            for metric, bound in resolved.items():
                if bound.min is not None and bound.max is not None and bound.min > bound.max:
                    raise ValueError(
                        f"filter.tasks.{name}.{metric}: with prompts/{name}.yaml and filter.default, "
                        f"min = {bound.min:g} is above max = {bound.max:g}, so nothing could pass: "
                        "state the other side too"
                    )

    @classmethod
    def conflicts(
        cls, config: FilterConfig, tasks: Tasks, sections: Mapping[str, StageConfig]
    ) -> Iterator[str]:
        """A bound of the manifest on a metric whose model the manifest does not name asks for nothing.

        A bound of a task file is for whoever measures the metric.
        """
        missing = unmeasured(sections)
        stated = [("filter.default", config.default)]
        stated += [(f"filter.tasks.{task}", config.tasks[task]) for task in config.tasks if task in tasks]
        for key, bounds in stated:
            for metric in bounds:
                if metric in missing:
                    yield f"{key}.{metric}: nothing measures it: set {missing[metric]}, or take the bound out"

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = [self._decide(row) for row in rows.to_pylist()]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _decide(self, row: Mapping[str, Any]) -> Decision:
        scores, model = scores_of(row), self.models.get(row["task"])
        try:
            choice = choose(scores, self.bounds[row["task"]], model)
        except ValueError as error:
            return failed(error)
        if choice.reason:
            return rejected(choice.reason)
        return kept(
            choice=choice.index,
            rank=rank(scores[choice.index], model),
            anchor_hash=row["anchor_hash"],
            target_hash=row["candidate_hashes"][choice.index],
        )


class JudgedFilter(Filter):
    """The filter stage in a run with a judge."""

    reads: ClassVar[Mapping[str, Sequence[str]]] = {**Filter.reads, "judge": [SCORE_COLUMNS["judge"]]}


def unmeasured(sections: Mapping[str, StageConfig]) -> dict[str, str]:
    """The metrics that a run does not measure, each with the manifest key that would have it measured.

    Args:
        sections: the sections of the run's stages, by stage.
    """
    score = sections.get("score")
    missing = {
        name: f"score.{metric.needs}"
        for name, metric in METRICS.items()
        if metric.optional and score is not None and not getattr(score, metric.needs, None)
    }
    return missing if "judge" in sections else missing | dict.fromkeys(JUDGED, "judge.model")


def resolve_bounds(task: Task, config: FilterConfig) -> dict[str, Bounds]:
    """The bounds of a task's metrics in the order of METRICS, after all overrides."""
    model = None if config.model is None else config.model.tasks.get(task.name)
    by_hand = [task.thresholds, config.default, config.tasks.get(task.name, {})]
    resolved = {}
    for metric in (metric.name for metric in metrics_of(task)):
        stated: dict[str, Any] = {}
        layers = [] if model is not None and metric in model.replaces else by_hand
        for layer in [*layers, {} if model is None else model.bounds]:
            if metric in layer:
                stated |= layer[metric].model_dump(exclude_none=True)
        if stated:
            resolved[metric] = Bounds(**stated)
    return resolved


@dataclass(frozen=True)
class Choice:
    """The best candidate. ``reason`` is empty if the candidate is within all bounds."""

    index: int
    reason: str


def choose(
    candidates: Sequence[Scores], bounds: Mapping[str, Bounds], model: TaskModel | None = None
) -> Choice:
    """Choose the candidate with the highest rank (:func:`rank`) among those that pass.

    A tie goes to the lower index. If no candidate passes, the reason is that of the best of all candidates.

    Raises:
        ValueError: there is no candidate, or a score is not a finite number.
    """
    if not candidates:
        raise ValueError("the row has no candidate")
    for index, scores in enumerate(candidates):
        for metric, value in scores.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{metric} of candidate {index} is not a finite number")
    reasons = [objection(scores, bounds, model) for scores in candidates]
    passing = [index for index, reason in enumerate(reasons) if not reason]
    best = max(passing or range(len(candidates)), key=lambda index: rank(candidates[index], model))
    return Choice(best, reasons[best])


def objection(scores: Scores, bounds: Mapping[str, Bounds], model: TaskModel | None = None) -> str:
    """Why a candidate does not pass: a violated bound, then what its task's model says; "" if it passes."""
    broken = broken_bound(scores, bounds)
    if broken or model is None:
        return broken
    if missing := model.missing(scores):
        return f"{missing}_missing"
    return "" if model.probability(scores) >= model.threshold else "calibrated_low"


def broken_bound(scores: Scores, bounds: Mapping[str, Bounds]) -> str:
    """The first violated bound of a candidate, as ``<metric>_low`` or ``<metric>_high``; "" if there is none.

    A metric without a value violates its bound as ``<metric>_missing``: an unmeasured candidate may be bad.
    The exceptions are metrics of models that a manifest may leave out (``Metric.optional``), and the judge's
    in a run without the judge stage: there they are no keys of ``scores``.
    """
    for metric, bound in bounds.items():
        value = scores.get(metric)
        if value is None:
            if METRICS[metric].optional or (metric in JUDGED and metric not in scores):
                continue
            return f"{metric}_missing"
        if bound.min is not None and not value >= bound.min:
            return f"{metric}_low"
        if bound.max is not None and not value <= bound.max:
            return f"{metric}_high"
    return ""


def rank(scores: Scores, model: TaskModel | None = None) -> float:
    """The value that ranks candidates: the model's probability; without a model, ``clip_direction``.

    It is minus infinity for a candidate that has neither.
    """
    if model is not None:
        return model.probability(scores)
    direction = scores.get("clip_direction")
    return -math.inf if direction is None else direction
