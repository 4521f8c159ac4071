"""``editpairs sweep``: how many pairs each threshold costs, computed from the stored scores.

One bound of one task moves at a time; all other bounds stay as in the manifest. No model is needed, and the
run is not changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from pipeline.engine.state import RunState
from pipeline.shown import DataTable, shown
from pipeline.views.rows import done_stages, rows
from stages.filter.choice import choose
from stages.filter.model import TaskModel
from stages.filter.stage import FilterConfig, resolve_bounds
from stages.score.metric import Scores
from stages.score.metrics import score_columns, scores_of
from stages.tasks import Bounds, Tasks

STEPS = 11
"""Number of values tried per bound: quantiles of the candidates' scores from lowest to highest."""


@dataclass(frozen=True)
class Curve:
    """The yield of a task as one bound moves: at ``values[k]``, ``kept[k]`` of ``rows`` rows are kept."""

    task: str
    metric: str
    side: str
    """``min`` or ``max``."""
    now: float
    """The bound in the manifest."""
    rows: int
    kept_now: int
    values: tuple[float, ...]
    kept: tuple[int, ...]


def read_scores(state: RunState) -> dict[str, list[Sequence[Scores]]]:
    """By task, the candidates' scores of every row that the score stage kept, in all turns.

    The candidates of a row's rounds count together: the row is kept if any of them passes.
    """
    scores: dict[str, dict[tuple[int, str], list[Scores]]] = {}
    for step in state.steps.values():
        for part in range(state.plan.parts) if step.stage == "score" else ():
            if state.done(step, part):
                reads = {"plan": ["task"], **score_columns(done_stages(state, part, step.turn))}
                for row in rows(state, part, reads, turn=step.turn, round=step.round):
                    if row.get("stage") in reads and row["status"] == "kept":
                        of_task = scores.setdefault(row["task"], {})
                        of_task.setdefault((step.turn, row["id"]), []).extend(scores_of(row))
    return {task: list(of_task.values()) for task, of_task in scores.items()}


def sweep(scores: Mapping[str, list[Sequence[Scores]]], tasks: Tasks, config: FilterConfig) -> list[Curve]:
    """One curve for each task and each bound of a metric."""
    curves = []
    for task in sorted(scores):
        bounds = resolve_bounds(tasks[task], config)
        model = None if config.model is None else config.model.tasks.get(task)
        kept_now = _kept(scores[task], bounds, model)
        for metric, bound in bounds.items():
            found = (candidate.get(metric) for row in scores[task] for candidate in row)
            seen = [score for score in found if score is not None]
            if not seen:
                continue
            values = tuple(float(v) for v in np.quantile(seen, np.linspace(0, 1, STEPS)))
            for side in ("min", "max"):
                now = getattr(bound, side)
                if now is None:
                    continue
                moved = [_moved(bounds, metric, side, value) for value in values]
                kept = tuple(_kept(scores[task], each, model) for each in moved)
                curves.append(Curve(task, metric, side, now, len(scores[task]), kept_now, values, kept))
    return curves


def _moved(bounds: Mapping[str, Bounds], metric: str, side: str, value: float) -> dict[str, Bounds]:
    return {**bounds, metric: bounds[metric].model_copy(update={side: value})}


def _kept(rows: Sequence[Sequence[Scores]], bounds: Mapping[str, Bounds], model: TaskModel | None) -> int:
    return sum(not choose(candidates, bounds, model).reason for candidates in rows)


def plot(curves: Sequence[Curve]) -> bytes:
    """A figure as PNG bytes: one row of panels per task; a line marks the current bound."""
    from matplotlib.figure import Figure

    tasks = sorted({curve.task for curve in curves})
    columns = max(sum(curve.task == task for curve in curves) for task in tasks)
    figure = Figure(figsize=(2.6 * columns, 2.1 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), columns, squeeze=False)
    for line, task in zip(panels, tasks, strict=True):
        own = [curve for curve in curves if curve.task == task]
        for axes, curve in zip(line, own, strict=False):
            axes.plot(curve.values, np.array(curve.kept) / curve.rows, color="tab:blue")
            axes.axvline(curve.now, color="tab:red", linewidth=1)
            axes.set_title(shown(f"{task}: {curve.metric}.{curve.side}"), fontsize=8, parse_math=False)
            axes.set_ylim(0, 1.02)
            axes.tick_params(labelsize=7)
        for axes in line[len(own) :]:
            axes.axis("off")
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def curves_table(curves: Sequence[Curve]) -> DataTable:
    """A table with one line per curve: bound and yield now, yield without the bound and at other values."""
    table = DataTable(box=None, header_style="bold", pad_edge=False)
    for name in ("task", "bound", "now", "kept", "without", "kept at other values"):
        table.add_column(name, justify="right" if name in ("now", "kept", "without") else "left")
    for curve in curves:
        free = curve.kept[0] if curve.side == "min" else curve.kept[-1]
        points = zip(curve.values[1:-1:2], curve.kept[1:-1:2], strict=True)
        table.add_row(
            curve.task,
            f"{curve.metric}.{curve.side}",
            f"{curve.now:g}",
            f"{curve.kept_now}/{curve.rows}",
            f"{free}/{curve.rows}",
            "  ".join(f"{value:.3g}: {kept}" for value, kept in points),
        )
    return table
