"""What each score adds to a calibrated filter: the table in ``docs/filter-calibration.md``."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.progress import track
from sklearn.metrics import roc_auc_score

from pipeline.calibration.calibrate import calibrate
from pipeline.calibration.crossed import decide
from pipeline.calibration.figures import measured
from pipeline.verdicts.estimate import Known
from stages.filter.model import Curve, FilterModel, TaskModel
from stages.filter.stage import FilterConfig
from stages.score.metrics import METRICS
from stages.tasks import Tasks


def additions_table(
    train: Sequence[Known], test: Sequence[Known], tasks: Tasks, config: FilterConfig, precision: float
) -> Iterator[str]:
    """What is lost without each metric, and without each part of the model."""
    yield "| calibrated | ranked right | precision | recall |"
    yield "|---|---:|---|---|"
    whole = calibrate(train, tasks, config, precision).model
    yield _addition("with all scores", test, tasks, config, whole)
    yield _addition("without bounds", test, tasks, config, _each(whole, lambda task: {"bounds": {}}))
    yield _addition("without curves", test, tasks, config, _each(whole, _flat))
    used = {metric for model in whole.tasks.values() for metric in model.curves}
    for metric in track([name for name in METRICS if name in used], "leaving scores out"):
        fewer = _without(tasks, metric)
        model = calibrate(train, fewer, config, precision).model
        yield _addition(f"without `{metric}`", test, fewer, config, model)


def _each(model: FilterModel, change: Callable[[TaskModel], dict[str, Any]]) -> FilterModel:
    tasks = {name: task.model_copy(update=change(task)) for name, task in model.tasks.items()}
    return model.model_copy(update={"tasks": tasks})


def _flat(task: TaskModel) -> dict[str, Any]:
    """Curves that add nothing, so that the bounds alone decide."""
    flat = {
        metric: Curve(at=(0.0,), adds=(0.0,), missing=curve.missing) for metric, curve in task.curves.items()
    }
    return {"curves": flat, "threshold": 0.0}


def _without(tasks: Tasks, metric: str) -> Tasks:
    """The tasks without a metric and its bounds."""
    fewer = {}
    for name, task in tasks.items():
        metrics = tuple(listed for listed in task.metrics if listed != metric)
        fewer[name] = task.model_copy(update={"metrics": metrics})
    return Tasks(fewer, tasks.known)


def _addition(
    name: str, rows: Sequence[Known], tasks: Tasks, config: FilterConfig, model: FilterModel
) -> str:
    ranked, found = ranked_right(rows, model), measured(decide(rows, tasks, config, model))
    return f"| {name} | {'-' if ranked is None else f'{ranked:.3f}'} | {found.precision} | {found.recall} |"


def ranked_right(rows: Sequence[Known], model: FilterModel) -> float | None:
    """How often a right candidate is more probable than a wrong one; None if the model has no task."""
    odds, right = [], []
    for row in rows:
        task = model.tasks.get(row.row.task)
        for scores, verdict in zip(row.row.scores, row.right, strict=True):
            if task is not None and verdict is not None:
                odds.append(task.log_odds(scores))
                right.append(verdict)
    if len(set(right)) < 2:
        return None
    return float(roc_auc_score(right, np.nan_to_num(np.array(odds), neginf=-1e9)))
