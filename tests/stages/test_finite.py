"""What is not finite fails its row, naming the stage that made it, and leaves its neighbours as they were."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.base import Weights
from stages.edit.annotations.estimated import draw_depth, draw_pose
from stages.edit.stage import Edit
from stages.finite import NotFiniteError
from stages.mask.stage import Mask
from stages.models.depth import DepthEstimator
from stages.models.diffusion.model import Diffusion
from stages.models.pose import PoseEstimator
from stages.pictures.png import decode_rgb, encode_png
from stages.source.stage import Source
from stages.tasks import Tasks
from tests.stages.test_annotate import subject
from tests.stages.tiny_estimators import save_tiny_depth, save_tiny_pose
from tests.stages.tiny_models import save_detector, save_segmenter
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

TASKS = Tasks(
    {"local": tiny_task(metrics=[]), "depth": tiny_task("depth", index=1, method="depth", candidates=[])}
)
SICK = 7
"""The seed of the row whose numbers are spoiled."""
SPOILED = [float("nan"), float("inf"), float("-inf")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_stable_diffusion(root / "diffusion")
    save_detector(root / "detector")
    save_segmenter(root / "segmenter")
    save_tiny_depth(root / "depth")
    return root


def spoil_noise(monkeypatch, value: float) -> None:
    """One number of the first latents of the sick row."""
    whole = Diffusion.initial_latents

    def spoiled(model: Diffusion, seeds: list[int], size=None) -> torch.Tensor:
        latents = whole(model, seeds, size)
        for row, seed in enumerate(seeds):
            if seed == SICK:
                latents[row, 0, 0, 0] = value
        return latents

    monkeypatch.setattr(Diffusion, "initial_latents", spoiled)


def drawing(folder) -> dict:
    return {"model": str(folder / "diffusion"), "steps": 5, "guidance_scale": 1.0}


def plan(*seeds: int) -> dict[str, list]:
    count = len(seeds)
    return {
        "id": [f"row{seed}" for seed in seeds],
        "caption": ["a red car"] * count,
        "task": ["local"] * count,
        "seed": list(seeds),
        "instruction": ["make the car blue"] * count,
        "output_caption": ["a blue car"] * count,
        "edited_object": ["a blue car"] * count,
        "original_object": ["a red car"] * count,
        "surroundings": [""] * count,
    }


@pytest.mark.parametrize("value", SPOILED)
def test_a_source_that_is_not_finite_fails_its_row_alone(folder, monkeypatch, value):
    stage = Source(Source.Config(diffusion=drawing(folder), batch=3), TASKS)
    names = ("id", "caption", "task", "seed", "output_caption", "surroundings")
    rows = pa.table({name: column for name, column in plan(1, SICK, 2).items() if name in names})
    before = stage(rows).to_pylist()
    spoil_noise(monkeypatch, value)
    first, sick, last = stage(rows).to_pylist()
    assert (first, last) == (before[0], before[2])
    assert sick["status"] == "failed"
    assert sick["reason"] == "NotFiniteError: source: the drawn picture is not finite (NaN or infinity)"
    assert sick["source_image"] is None


def test_an_edit_that_is_not_finite_fails_its_row_alone(folder, monkeypatch):
    tasks = Tasks({"local": TASKS["local"]})
    stage = Edit(Edit.Config(diffusion=drawing(folder), batch=3), tasks)
    ones = encode_png(np.full((16, 16), 255, np.uint8))
    picture = encode_png(np.zeros((16, 16, 3), np.uint8))
    masks = {name: [ones] * 3 for name in ("precise_mask", "smooth_mask", "soft_mask")}
    columns = {**plan(1, SICK, 2), **masks, "source_image": [picture] * 3, "boxes": [[[0.0, 0, 16, 16]]] * 3}
    before = stage(pa.table(columns)).to_pylist()
    assert [row["status"] for row in before] == ["kept"] * 3
    spoil_noise(monkeypatch, float("nan"))
    first, sick, last = stage(pa.table(columns)).to_pylist()
    assert (first, last) == (before[0], before[2])
    assert (sick["status"], sick["candidates"]) == ("failed", None)
    assert sick["reason"].startswith("NotFiniteError: edit: the source drawn again is not finite")


def test_a_decoder_that_overflows_fails_what_it_decodes(folder):
    stage = Source(Source.Config(diffusion=drawing(folder), batch=2), TASKS)
    with torch.no_grad():
        stage.model.decoder.vae.decoder.conv_out.bias.fill_(float("inf"))
    names = ("id", "caption", "task", "seed", "output_caption", "surroundings")
    rows = pa.table({name: column for name, column in plan(1, 2).items() if name in names})
    assert stage(rows)["status"].to_pylist() == ["failed"] * 2


@pytest.fixture
def masker(folder) -> Mask:
    grounding = {"model": str(folder / "detector"), "box_threshold": 0, "text_threshold": 0}
    section = {"segmenter": {"model": str(folder / "segmenter")}, "min_area": 0, "max_area": 1, "batch": 3}
    return Mask(
        Mask.Config.model_validate({**section, "grounding": grounding}), Tasks({"local": TASKS["local"]})
    )


def masked(masker: Mask) -> list[dict]:
    picture = encode_png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    columns = {name: plan(1, SICK, 2)[name] for name in ("id", "task", "edited_object", "original_object")}
    return masker(pa.table({**columns, "source_image": [picture] * 3})).to_pylist()


@pytest.mark.parametrize("value", SPOILED)
@pytest.mark.parametrize("output", ["pred_logits", "pred_boxes"])
def test_a_detection_that_is_not_finite_fails_its_row_alone(masker, output, value):
    before = masked(masker)

    def spoil(_module, _args, found):
        found[output][1, 0, 1] = value
        return found

    masker.detector.model.register_forward_hook(spoil)
    first, sick, last = masked(masker)
    assert (first, last) == (before[0], before[2])
    assert sick["status"] == "failed"
    assert sick["reason"].startswith("NotFiniteError: mask: the detector's output is not finite")


def test_a_mask_that_is_not_finite_fails_its_row_alone(masker):
    before, calls = masked(masker), []

    def spoil(_module, _args, found):
        calls.append(found)
        return (found[0] * (float("nan") if len(calls) == 2 else 1), found[1])

    masker.segmenter.model.mask_decoder.register_forward_hook(spoil)
    first, sick, last = masked(masker)
    assert (first, last) == (before[0], before[2])
    assert sick["reason"].startswith("NotFiniteError: mask: the segmenter's output is not finite")


def test_an_estimate_that_is_not_finite_is_told(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    depth = DepthEstimator(Weights(model=save_tiny_depth(tmp_path / "depth")), "edit.depth.model")
    pose = PoseEstimator(Weights(model=save_tiny_pose(tmp_path / "pose")), "edit.pose.model")
    for estimator in (depth, pose):
        for parameter in estimator.model.parameters():
            parameter.data.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="edit: the depth map is not finite"):
        draw_depth(depth, subject(image))
    with pytest.raises(NotFiniteError, match="edit: the pose is not finite"):
        draw_pose(pose, subject(image, [[2, 4, 32, 44]]))


def test_an_annotation_that_is_not_finite_fails_its_row_alone(folder):
    tasks = Tasks({"depth": TASKS["depth"]})
    stage = Edit(
        Edit.Config(diffusion=drawing(folder), depth={"model": str(folder / "depth")}, batch=2), tasks
    )
    ones = encode_png(np.full((16, 16), 255, np.uint8))
    images = [encode_png(np.full((16, 16, 3), level, np.uint8)) for level in (60, 200)]
    masks = {name: [ones] * 2 for name in ("precise_mask", "smooth_mask", "soft_mask")}
    columns = {**plan(1, SICK), **masks, "source_image": images, "boxes": [[], []], "task": ["depth"] * 2}
    rows = pa.table(columns).cast(
        pa.table(columns).schema.set(
            list(columns).index("boxes"), pa.field("boxes", pa.list_(pa.list_(pa.float32())))
        )
    )
    estimator = stage.annotations["depth"].args[0]
    whole = estimator.nearness

    def spoiled(image: np.ndarray) -> np.ndarray:
        if image.mean() > 150:
            for parameter in estimator.model.head.parameters():
                parameter.data.fill_(float("nan"))
        return whole(image)

    estimator.nearness = spoiled
    first, sick = stage(rows).to_pylist()
    assert first["status"] == "kept"
    assert decode_rgb(first["candidates"][0]["image"]).shape == (16, 16, 3)
    assert sick["reason"].startswith("NotFiniteError: edit: the depth map is not finite")
