"""Every task has a bound that a black, a flat, a noisy and an unchanged target break, whatever models say."""

from pathlib import Path

import numpy as np
import pytest

from stages.edit.annotations.marks import Subject, draw_boxes, draw_mask, draw_sketch
from stages.filter.choice import broken_bound
from stages.filter.model import FilterModel
from stages.filter.stage import FilterConfig, resolve_bounds
from stages.pictures.fidelity import as_float, contrast, mean_change, roughness
from stages.pictures.png import encode_png
from stages.pictures.region import Region
from stages.score.evidence import Evidence, Row, Seen
from stages.score.metrics import metrics_of
from stages.tasks import load_tasks
from toybox.world.render import render
from toybox.world.scene import sample_scene

TASKS = load_tasks(Path(__file__).parents[2] / "prompts")
SIDE = 64
MASK = np.zeros((SIDE, SIDE), np.float32)
MASK[24:44, 20:40] = 1
BOXES = [[20.0, 24.0, 40.0, 44.0]]
REGION = Region(MASK, np.array(BOXES, np.float32))
SCENES = [render(sample_scene(np.random.default_rng(seed), things=2)).image for seed in range(6)]


def flat(level: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def degenerate(image: np.ndarray) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(0)
    mean = image.reshape(-1, 3).mean(0).round().astype(np.uint8)
    grey = noise.normal(128, 20, (SIDE, SIDE, 1)).clip(0, 255)
    return {
        "black": flat(0),
        "white": flat(255),
        "grey": flat(128),
        "of the picture's mean": np.broadcast_to(mean, image.shape).copy(),
        "noise": noise.integers(0, 256, image.shape, np.uint8),
        "faint noise": np.broadcast_to(grey, image.shape).astype(np.uint8),
        "the input": image.copy(),
    }


def indifferent(task_name: str) -> FilterModel:
    """A calibrated filter that has replaced every bound that it can, and likes everything."""
    curve = {"at": [0], "adds": [9], "missing": 9}
    curves = {metric.name: curve for metric in metrics_of(TASKS[task_name])}
    return FilterModel(version=1, tasks={task_name: {"threshold": 0, "curves": curves}})


def reason(
    task_name: str,
    anchor: np.ndarray,
    drawn: np.ndarray,
    composite: bool = True,
    model: FilterModel | None = None,
) -> str:
    """The first bound of the metrics without a model that a drawing breaks, pasted as its task does it."""
    task = TASKS[task_name]
    _, outside = REGION.metric_regions(task.region)
    made = drawn
    if task.composite and composite:
        keep = MASK if task.region == "object" else 1 - MASK
        made = np.where(keep[..., None] > 0, drawn, anchor)
    by_diffusion = task.method == "prompt2prompt"
    candidate = {
        "image": encode_png(made),
        "change_outside_raw": mean_change(as_float(anchor), as_float(drawn), outside)
        if by_diffusion
        else None,
        "contrast_raw": contrast(as_float(drawn)) if by_diffusion else None,
    }
    record = {
        "anchor": encode_png(anchor),
        "candidates": [candidate],
        "caption": "",
        "output_caption": "",
        "precise_mask": encode_png((MASK * 255).astype(np.uint8)),
        "boxes": BOXES,
    }
    nothing = Seen(np.zeros((2, 1), np.float32), {})
    evidence = Evidence(Row(task, record), nothing, 0)
    scores = {metric.name: metric.compute(evidence) for metric in metrics_of(task, "pictures")}
    bounds = resolve_bounds(task, FilterConfig(model=model))
    return broken_bound(scores, {metric: bound for metric, bound in bounds.items() if metric in scores})


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("scene", range(len(SCENES)))
def test_a_degenerate_drawing_is_rejected(name, scene):
    for what, drawn in degenerate(SCENES[scene]).items():
        assert reason(name, SCENES[scene], drawn), what


@pytest.mark.parametrize("name", TASKS)
def test_no_calibrated_filter_keeps_a_degenerate_drawing(name):
    for what, drawn in degenerate(SCENES[0]).items():
        assert reason(name, SCENES[0], drawn, model=indifferent(name)), what


@pytest.mark.parametrize("name", TASKS)
def test_a_dark_picture_does_not_hide_a_black_drawing(name):
    dark = (SCENES[0] // 6).astype(np.uint8)
    for what, drawn in degenerate(dark).items():
        assert reason(name, dark, drawn), what


@pytest.mark.parametrize("name", TASKS)
def test_a_degenerate_input_is_rejected(name):
    for what in ("black", "white", "grey", "noise"):
        picture = degenerate(SCENES[0])[what]
        assert reason(name, picture, SCENES[0], composite=False), what


@pytest.mark.parametrize(
    ("name", "draw"), [("detect", draw_boxes), ("segment", draw_mask), ("sketch", draw_sketch)]
)
def test_an_annotation_is_not(name, draw):
    for scene in SCENES:
        assert reason(name, scene, draw(Subject(scene, REGION))) == ""


def test_pictures_of_things_are_smooth_and_noise_is_not():
    assert max(roughness(as_float(scene)) for scene in SCENES) < 0.4
    assert roughness(as_float(degenerate(SCENES[0])["noise"])) == pytest.approx(1.13, abs=0.05)
    assert roughness(as_float(flat(7))) == 0
