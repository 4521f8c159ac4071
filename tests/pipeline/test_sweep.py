from io import BytesIO

from PIL import Image

from pipeline.views.sweep import curves_table, plot, sweep
from stages.filter.choice import choose
from stages.filter.stage import FilterConfig, resolve_bounds
from stages.score.metrics import METRICS
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks({"local": tiny_task(metrics=["clip_direction", "clip_image"])})
CONFIG = FilterConfig(default={"clip_direction": 0.3, "clip_image": {"max": 0.9}})


def row(*directions: float, image: float = 0.5) -> list[dict[str, float | None]]:
    return [
        {**dict.fromkeys(METRICS), "clip_direction": direction, "clip_image": image}
        for direction in directions
    ]


SCORES = {"local": [row(0.1, 0.2), row(0.3, 0.0), row(0.4, 0.9), row(0.8, 0.8, image=0.95)]}


def test_a_curve_counts_what_the_filter_keeps_at_each_value():
    curves = {(curve.metric, curve.side): curve for curve in sweep(SCORES, TASKS, CONFIG)}
    assert set(curves) == {("clip_direction", "min"), ("clip_image", "max")}
    direction = curves["clip_direction", "min"]
    assert (direction.rows, direction.now, direction.kept_now) == (4, 0.3, 2)
    assert (direction.values[0], direction.values[-1]) == (0.0, 0.9)
    assert (direction.kept[0], direction.kept[-1]) == (3, 1)
    assert list(direction.kept) == sorted(direction.kept, reverse=True)
    for value, kept in zip(direction.values, direction.kept, strict=True):
        moved = FilterConfig(default={**CONFIG.default, "clip_direction": {"min": value}})
        bounds = resolve_bounds(TASKS["local"], moved)
        assert kept == sum(choose(scores, bounds).reason == "" for scores in SCORES["local"])
    assert curves["clip_image", "max"].kept[-1] == 3


def test_curves_can_be_read_and_looked_at():
    curves = sweep(SCORES, TASKS, CONFIG)
    assert curves_table(curves).row_count == 2
    assert Image.open(BytesIO(plot(curves))).size[0] > 300


def test_a_task_of_any_name_has_its_panel(recwarn):
    """Dollars are no formula, and what no font has gives no warning with the name in it."""
    name = "co$t_{$ \x1b[31m\u202e"
    tasks = Tasks({name: tiny_task(name, metrics=["clip_direction", "clip_image"])})
    plot(sweep({name: SCORES["local"]}, tasks, CONFIG))
    assert not any("\x1b" in str(warning.message) for warning in recwarn)


def test_a_task_without_bounds_has_no_curve():
    assert sweep(SCORES, TASKS, FilterConfig()) == []
