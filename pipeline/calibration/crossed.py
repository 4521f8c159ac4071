"""What a calibrated filter would do with rows that it had not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.calibration.calibrate import calibrate
from pipeline.calibration.folds import folds
from pipeline.verdicts.estimate import Known, RowKey
from stages.filter.choice import choose
from stages.filter.model import FilterModel, TaskModel
from stages.filter.stage import FilterConfig, resolve_bounds
from stages.tasks import Tasks


def cross_validated(
    known: Sequence[Known], tasks: Tasks, config: FilterConfig, precision: float
) -> list[Known]:
    """The judged rows with new choices, each by a calibration on the other folds.

    Everything is fitted anew for each fold: curves, bounds, thresholds. Arguments as for :func:`calibrate`.
    """
    decided: dict[RowKey, Known] = {}
    for training, rest in folds(known):
        model = calibrate(training, tasks, config, precision).model
        decided |= {(row.row.id, row.row.turn): row for row in decide(rest, tasks, config, model)}
    return [decided[row.row.id, row.row.turn] for row in known]


def decide(
    known: Sequence[Known], tasks: Tasks, config: FilterConfig, model: FilterModel | None
) -> list[Known]:
    """The rows with the choices of a filter with this model; verdicts and weights stay."""
    config = config.model_copy(update={"model": model})
    models: Mapping[str, TaskModel] = {} if model is None else model.tasks
    bounds = {name: resolve_bounds(task, config) for name, task in tasks.items()}
    decided = []
    for row in known:
        choice = choose(row.row.scores, bounds[row.row.task], models.get(row.row.task))
        decided.append(replace(row, row=replace(row.row, choice=None if choice.reason else choice.index)))
    return decided
