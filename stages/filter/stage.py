"""The filter stage: thresholds on the scores, and the choice of one candidate per row. It needs no model.

The bounds of a metric come from the task file, then the manifest's ``filter.default``, then
``filter.tasks.<task>``. A later source replaces only the sides (min, max) that it states. A calibrated
``filter.model`` replaces the bounds of the metrics that it knows, but not those of guards (``Metric.guard``).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from stages.base import Decision, Stage, StageConfig, failed, kept, rejected, to_table
from stages.filter.choice import broken_bound, choose, rank
from stages.filter.model import FilterModel, model_of
from stages.score.metric import OPTIONAL
from stages.score.metrics import (
    FURTHER,
    JUDGED,
    METRICS,
    SCORE_COLUMNS,
    check_bounds,
    metrics_of,
    optional_scores,
    scores_of,
)
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

    @property
    def made_for(self) -> Mapping[str, str]:
        """A calibrated model reads scores of the models that it was calibrated with, and of no others."""
        return {} if self.model is None else self.model.scored_by

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        sections = {"filter.default": self.default}
        sections |= {f"filter.tasks.{task}": bounds for task, bounds in self.tasks.items()}
        for key, bounds in sections.items():
            check_bounds(bounds, key)
        return self


class Filter(Stage[FilterConfig]):
    """Chooses a candidate of each row, or rejects the row with ``<metric>_low``, ``_high`` or ``_missing``.

    ``choice`` is the candidate within all bounds with the highest rank (:mod:`stages.filter.choice`).
    ``rank`` is its ``clip_direction``. In a task of ``filter.model`` it is the probability that the candidate
    is right, and a row is also rejected as ``calibrated_low``. ``inverse_reason`` is the first violated bound
    of the pair backwards (``Metric.backward``), or empty; it rejects no row. The pictures' hashes are for the
    select stage.
    """

    version: ClassVar[int] = 4
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
            ("inverse_reason", pa.string()),
            ("anchor_hash", pa.int64()),
            ("target_hash", pa.int64()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = FilterConfig

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        return _BESIDE[optional_scores(stages)]

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
                        f"{_way_out(metric, tasks[name])}"
                    )
        for name, model in self.models.items():
            for metric in {*model.curves, *model.bounds} if name in tasks else ():
                if METRICS[metric] not in metrics_of(tasks[name]):
                    raise ValueError(
                        f"filter.model.tasks.{name}: the task does not compute the metric {metric}; "
                        f"calibrate again, or {_way_out(metric, tasks[name])}"
                    )
        self.bounds = {task.name: resolve_bounds(task, config) for task in tasks.values()}
        self.backward = {task.name: resolve_bounds(task, config, backward=True) for task in tasks.values()}
        for name, resolved in (*self.bounds.items(), *self.backward.items()):
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

        A bound of a task file is for whoever measures the metric. A calibrated model that needs such a metric
        would reject every row.
        """
        missing = unmeasured(sections)
        stated = [("filter.default", config.default)]
        stated += [(f"filter.tasks.{task}", config.tasks[task]) for task in config.tasks if task in tasks]
        for key, bounds in stated:
            for metric in bounds:
                if metric in missing:
                    yield f"{key}.{metric}: nothing measures it: set {missing[metric]}, or take the bound out"
        for task, model in ({} if config.model is None else config.model.tasks).items():
            for metric, curve in model.curves.items() if task in tasks else ():
                if metric in missing and curve.missing is None:
                    yield (
                        f"filter.model.tasks.{task}.curves.{metric}: nothing measures it: "
                        f"set {missing[metric]}, or calibrate again"
                    )

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
            inverse_reason=broken_bound(scores[choice.index], self.backward[row["task"]]),
            anchor_hash=row["anchor_hash"],
            target_hash=row["candidate_hashes"][choice.index],
        )


class MeasuredFilter(Filter):
    """The filter stage in a run with the measure stage."""

    reads: ClassVar[Mapping[str, Sequence[str]]] = {**Filter.reads, "measure": [SCORE_COLUMNS["measure"]]}


class JudgedFilter(Filter):
    """The filter stage in a run with a judge."""

    reads: ClassVar[Mapping[str, Sequence[str]]] = {**Filter.reads, "judge": [SCORE_COLUMNS["judge"]]}


class MeasuredJudgedFilter(Filter):
    """The filter stage in a run with the measure stage and a judge."""

    reads: ClassVar[Mapping[str, Sequence[str]]] = {**MeasuredFilter.reads, **JudgedFilter.reads}


_BESIDE: Mapping[tuple[str, ...], type[Filter]] = {
    (): Filter,
    ("measure",): MeasuredFilter,
    ("judge",): JudgedFilter,
    ("measure", "judge"): MeasuredJudgedFilter,
}
"""The class for each choice of optional scoring stages."""


def _way_out(metric: str, task: Task) -> str:
    if metric in FURTHER:
        return f"take the bound out: the metric {METRICS[metric].unsuited(task)}"
    return f"add it to 'metrics' in prompts/{task.name}.yaml"


def unmeasured(sections: Mapping[str, StageConfig]) -> dict[str, str]:
    """The metrics that a run does not measure, each with the manifest key that would have it measured.

    Args:
        sections: the sections of the run's stages, by stage.
    """
    missing = {}
    for name, metric in METRICS.items():
        if metric.optional:
            stage, key = OPTIONAL[metric.needs].split(".")
            if (stage in sections or stage == "measure") and not getattr(sections.get(stage), key, None):
                missing[name] = OPTIONAL[metric.needs]
    return missing if "judge" in sections else missing | dict.fromkeys(JUDGED, "judge.model")


def resolve_bounds(task: Task, config: FilterConfig, backward: bool = False) -> dict[str, Bounds]:
    """The bounds of a task's metrics in the order of METRICS, after all overrides.

    Args:
        backward: whether the bounds of the pair backwards are wanted, instead of those of the pair itself.
    """
    model = None if config.model is None else config.model.tasks.get(task.name)
    by_hand = [task.thresholds, config.default, config.tasks.get(task.name, {})]
    resolved = {}
    for metric in (metric.name for metric in metrics_of(task) if metric.backward == backward):
        stated: dict[str, Any] = {}
        layers = [] if model is not None and metric in model.replaces else by_hand
        for layer in [*layers, {} if model is None else model.bounds]:
            if metric in layer:
                stated |= layer[metric].model_dump(exclude_none=True)
        if stated:
            resolved[metric] = Bounds(**stated)
    return resolved
