"""The table of all metrics. A new metric is an entry in its family's file; tasks that use it list it."""

from collections.abc import Collection, Mapping
from typing import Any

from stages.score.families import backward, change, clip, defects, detector, further, judge, optional
from stages.score.metric import Metric, Need
from stages.tasks import Bounds, Task, Tasks

MEASURED: dict[str, Metric] = {
    metric.name: metric
    for family in (clip, change, detector, defects, optional, backward)
    for metric in family.METRICS
}
"""The metrics of the score stage by name, in the order in which they are published."""
JUDGED: dict[str, Metric] = {metric.name: metric for metric in judge.METRICS}
"""The metrics of the judge stage. They apply to every task, in runs with this stage."""
FURTHER: dict[str, Metric] = {metric.name: metric for metric in further.METRICS}
"""The metrics of the measure stage. They apply to every task that they suit, in runs with this stage."""
METRICS: dict[str, Metric] = MEASURED | FURTHER | JUDGED
BY_STAGE: Mapping[str, Mapping[str, Metric]] = {"score": MEASURED, "measure": FURTHER, "judge": JUDGED}
"""The metrics that each stage computes."""
SCORE_COLUMNS: Mapping[str, str] = {"score": "scores", "measure": "measures", "judge": "judge_scores"}
"""The column with scores that a stage writes, by stage. It holds one struct of metrics per candidate."""


def metrics_of(task: Task, need: Need | None = None) -> list[Metric]:
    """The metrics of a task, in the order of ``METRICS``; with ``need``, only those of this model."""
    return [
        metric
        for metric in METRICS.values()
        if (need is None or metric.needs == need) and _belongs(metric, task)
    ]


def _belongs(metric: Metric, task: Task) -> bool:
    if metric.name in FURTHER:
        return not metric.unsuited(task)
    return metric.name in JUDGED or metric.name in task.metrics


def metrics_in(stages: Collection[str]) -> dict[str, Metric]:
    """The metrics of a run of these stages by name, in the order in which they are published."""
    return {name: metric for stage in BY_STAGE if stage in stages for name, metric in BY_STAGE[stage].items()}


def optional_scores(stages: Collection[str]) -> tuple[str, ...]:
    """The scoring stages besides ``score`` in a run of these stages."""
    return tuple(stage for stage in SCORE_COLUMNS if stage != "score" and stage in stages)


def score_columns(stages: Collection[str]) -> dict[str, list[str]]:
    """The columns with scores, by stage, in a run of these stages."""
    return {stage: [column] for stage, column in SCORE_COLUMNS.items() if stage in stages}


def scores_of(row: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """The metrics of each candidate of a row, from all scoring stages; empty for an unscored row."""
    columns = [row[name] for name in SCORE_COLUMNS.values() if row.get(name) is not None]
    return [
        {metric: value for scores in of_candidate for metric, value in scores.items()}
        for of_candidate in zip(*columns, strict=True)
    ]


def check_bounds(bounds: Mapping[str, Bounds], key: str) -> None:
    """Check that the metrics under a key exist, and that their bounds admit some value.

    Raises:
        ValueError: a check failed. The message names the key and the metric.
    """
    for name, bound in bounds.items():
        if name not in METRICS:
            raise ValueError(f"{key}.{name}: unknown metric; known: {', '.join(METRICS)}")
        low, high = METRICS[name].range
        if (bound.min is not None and bound.min > high) or (bound.max is not None and bound.max < low):
            raise ValueError(f"{key}.{name}: it is between {low:g} and {high:g}, so nothing could pass")


def check_metrics(tasks: Tasks) -> None:
    """Check that the metrics of every task exist and suit the task.

    Raises:
        ValueError: a check failed. The message names the task file and the metric.
    """
    for task in tasks.values():
        check_bounds(task.thresholds, f"prompts/{task.name}.yaml: thresholds")
        for name in task.metrics:
            where = f"prompts/{task.name}.yaml: key 'metrics': {name!r}"
            if name not in METRICS:
                raise ValueError(f"{where} is unknown; known: {', '.join(METRICS)}")
            if unsuited := METRICS[name].unsuited(task):
                raise ValueError(f"{where} {unsuited}")
