"""Calibrating a filter: curves, bounds and thresholds from judged rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import expit

from pipeline.calibration.bounds import peel
from pipeline.calibration.curves import rounded
from pipeline.calibration.examples import examples_of
from pipeline.calibration.folds import LEAST_ROWS, judged_rows
from pipeline.calibration.held_out import HeldOut, fitted, held_out
from pipeline.calibration.operating import least_probability
from pipeline.verdicts.estimate import Known
from stages.filter.choice import broken_bound
from stages.filter.model import VERSION, FilterModel, TaskModel
from stages.filter.stage import FilterConfig, resolve_bounds
from stages.score.metrics import METRICS
from stages.tasks import Bounds, Task, Tasks


@dataclass(frozen=True)
class Calibrated:
    """A fitted filter, and the tasks that it leaves as they are, each with the reason."""

    model: FilterModel
    left_out: Mapping[str, str]


def calibrate(known: Sequence[Known], tasks: Tasks, config: FilterConfig, precision: float) -> Calibrated:
    """Fit a filter to judged rows.

    Args:
        known: judged rows with their weights.
        tasks: the run's tasks.
        config: the run's filter; only its bounds are used.
        precision: wanted share of right pairs among the kept rows of each task, in [0,1].
    """
    by_hand = config.model_copy(update={"model": None})
    judged = judged_rows(known)
    left_out = {
        task: f"{count} judged rows, {LEAST_ROWS} are needed"
        for task, count in sorted(judged.items())
        if count < LEAST_ROWS
    }
    used = [row for row in known if judged[row.row.task] >= LEAST_ROWS]
    if not used:  # as can be the case in a fold
        return Calibrated(FilterModel(version=VERSION, precision=precision, tasks={}), left_out)
    examples = examples_of(used, tasks)
    # A missing value violates a bound, so that metrics with a bound stay needed.
    needed = {
        task: [name for name in resolve_bounds(tasks[task], by_hand) if not METRICS[name].optional]
        for task in examples
    }
    crossed = held_out(used, tasks, needed)
    models = {}
    for task, plain in fitted(examples, needed, crossed.size).items():
        model = _recalibrated(plain, crossed).model_copy(update={"bounds": peel(examples[task])})
        rows = [row for row in used if row.row.task == task]
        threshold = _threshold(rows, with_model(tasks[task], by_hand, model), crossed, precision)
        if threshold is None:
            left_out[task] = f"no threshold keeps pairs of which {precision:g} are right"
        else:
            models[task] = model.model_copy(update={"threshold": rounded(threshold)})
    return Calibrated(FilterModel(version=VERSION, precision=precision, tasks=models), left_out)


def with_model(task: Task, config: FilterConfig, model: TaskModel) -> Mapping[str, Bounds]:
    """The bounds of a task with its model."""
    only = FilterModel(version=VERSION, tasks={task.name: model})
    return resolve_bounds(task, config.model_copy(update={"model": only}))


def _recalibrated(model: TaskModel, crossed: HeldOut) -> TaskModel:
    curves = {
        metric: curve.model_copy(
            update={"adds": tuple(rounded(crossed.factor * value) for value in curve.adds)}
        )
        for metric, curve in model.curves.items()
    }
    intercept = rounded(crossed.offset + crossed.factor * model.intercept)
    return model.model_copy(update={"intercept": intercept, "curves": curves})


def _threshold(
    rows: Sequence[Known], bounds: Mapping[str, Bounds], crossed: HeldOut, precision: float
) -> float | None:
    probabilities, weights = [], []
    for row in rows:
        odds = crossed.log_odds.get((row.row.id, row.row.turn))
        if odds is None:
            continue
        inside = [
            value
            for value, scores in zip(odds, row.row.scores, strict=True)
            if not broken_bound(scores, bounds)
        ]
        if inside:
            probabilities.append(float(expit(max(inside))))
            weights.append(row.weight)
    return least_probability(probabilities, weights, precision) if weights else None
