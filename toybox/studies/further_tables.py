"""The tables of ``toybox.studies.further_metrics``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from sklearn.metrics import roc_auc_score

from pipeline.calibration.calibrate import calibrate
from pipeline.calibration.crossed import decide
from pipeline.calibration.figures import measured
from pipeline.verdicts.estimate import Known
from stages.filter.stage import FilterConfig
from stages.score.metrics import METRICS
from stages.tasks import Tasks

PRECISION = 0.95
"""The wanted precision."""
KEYS: Mapping[str, tuple[str, ...]] = {
    "seam": ("seam",),
    "counts": ("count_error",),
    "region_clip": ("region_text", "region_direction"),
}
"""The keys of the section ``measure`` that run on the toybox, with their metrics."""
BESIDE = ("clip_direction", "clip_text_output", "present")
"""Metrics of the score stage that are shown beside them."""


def without(known: Sequence[Known], metrics: Sequence[str]) -> list[Known]:
    """The rows without some metrics."""
    gone = dict.fromkeys(metrics)
    return [
        replace(row, row=replace(row.row, scores=[{**scores, **gone} for scores in row.row.scores]))
        for row in known
    ]


def filter_table(
    train: Sequence[Known],
    test: Sequence[Known],
    tasks: Tasks,
    config: FilterConfig,
    cost: Mapping[str, float],
) -> Iterator[str]:
    """A line for each choice of keys: what a filter calibrated with their metrics keeps of unseen rows."""
    yield "| filter calibrated with | ranked right | precision | recall | CPU-s a row |"
    yield "|---|---:|---|---|---:|"
    everything = [metric for metrics in KEYS.values() for metric in metrics]
    choices = {
        "the metrics of `score`": (),
        **{f"and `{key}`": (key,) for key in KEYS},
        "and all": tuple(KEYS),
    }
    for name, keys in choices.items():
        gone = [metric for metric in everything if metric not in [m for key in keys for m in KEYS[key]]]
        seen, unseen = without(train, gone), without(test, gone)
        model = calibrate(seen, tasks, config, PRECISION).model
        found = measured(decide(unseen, tasks, config, model))
        odds = [
            (model.tasks[row.row.task].log_odds(scores), verdict)
            for row in unseen
            if row.row.task in model.tasks
            for scores, verdict in zip(row.row.scores, row.right, strict=True)
            if verdict is not None
        ]
        values, right = zip(*odds, strict=True)
        ranked = roc_auc_score(right, np.nan_to_num(np.array(values), neginf=-1e9))
        spent = sum(cost[key] for key in keys)
        yield f"| {name} | {ranked:.3f} | {found.precision} | {found.recall} | {spent:.3f} |"


def single_table(known: Sequence[Known]) -> Iterator[str]:
    """How often a right candidate has the better value of a metric than a wrong one, by task."""
    names = [*BESIDE, *(metric for metrics in KEYS.values() for metric in metrics)]
    tasks = sorted({row.row.task for row in known})
    yield f"| metric | {' | '.join(tasks)} |"
    yield "|---|" + "---:|" * len(tasks)
    counts = []
    for task in tasks:
        right = [verdict for row in known if row.row.task == task for verdict in row.right]
        counts.append(f"{right.count(True)}, {right.count(False)}")
    yield f"| right, wrong candidates | {' | '.join(counts)} |"
    for name in names:
        cells = [_ranked([row for row in known if row.row.task == task], name) for task in tasks]
        yield f"| `{name}` | {' | '.join(cells)} |"


def _ranked(known: Sequence[Known], metric: str) -> str:
    pairs = [
        (scores[metric], verdict)
        for row in known
        for scores, verdict in zip(row.row.scores, row.right, strict=True)
        if verdict is not None and scores.get(metric) is not None
    ]
    if len({verdict for _, verdict in pairs}) < 2:
        return ""
    values, right = zip(*pairs, strict=True)
    sign = -1 if METRICS[metric].sense == "less" else 1
    return f"{roc_auc_score(right, sign * np.array(values)):.2f}"


def seam_table(seams: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Iterator[str]:
    """How often a picture with a planted seam has the greater value of a metric than another one without."""
    yield "| metric | greater with a seam |"
    yield "|---|---:|"
    for name in ("seam", "change_inside", "change_outside", "roughness"):
        both = [(plain[name], spoiled[name]) for plain, spoiled in seams if name in plain and name in spoiled]
        plain, spoiled = zip(*both, strict=True)
        truth = [0] * len(plain) + [1] * len(spoiled)
        yield f"| `{name}` | {roc_auc_score(truth, [*plain, *spoiled]):.2f} |"
