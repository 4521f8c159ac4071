"""Pictures that are not square, and several sizes in one run."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from pydantic import ValidationError

from stages.edit.stage import Edit
from stages.mask.stage import Mask
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.model import Diffusion
from stages.models.grounding import GroundingConfig, load_detector
from stages.pictures.png import decode_mask, decode_rgb, encode_png
from stages.seeds import shape_of
from stages.source.stage import Source
from stages.tasks import Tasks
from tests.stages.test_finite import plan
from tests.stages.tiny_models import save_detector, save_segmenter
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

PROMPTS = ["a red car on a beach", "a blue ball in a meadow"]
SIZE = (16, 24)
BUCKETS = [[16, 16], [16, 24], [24, 12]]
TASKS = Tasks(
    {
        "local": tiny_task(
            metrics=[],
            composite=True,
            candidates=[{"mask": "soft", "cross_until": 0.5, "self_until": 0.5, "blend": 0.3}],
        )
    }
)
SOURCE_COLUMNS = ("id", "caption", "task", "seed", "output_caption", "surroundings")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    save_detector(root / "detector")
    save_segmenter(root / "segmenter")
    return {
        "sd": save_stable_diffusion(root / "sd"),
        "sdxl": save_sdxl(root / "sdxl"),
        "detector": root / "detector",
        "segmenter": root / "segmenter",
    }


@pytest.mark.parametrize(
    ("family", "reference"), [("sd", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)]
)
def test_latents_are_those_of_diffusers_own_pipeline(folders, family, reference):
    """Of a size that is not square: SDXL's size conditions differ from those of a square."""
    height, width = SIZE
    config = DiffusionConfig(
        model=str(folders[family]), steps=3, guidance_scale=5.0, height=height, width=width
    )
    model = Diffusion(config)
    noise = model.initial_latents([1, 2], config.size_of(1))
    assert noise.shape == (2, 4, height // 2, width // 2)
    latents = model.sample(noise, model.prompts.encode(PROMPTS), torch.full((2,), 5.0), [1, 2])
    pipeline = reference.from_pretrained(folders[family])
    pipeline.scheduler = type(model.scheduler).from_config(model.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    options = {"latents": noise, "guidance_scale": 5.0, "num_inference_steps": 3, "output_type": "latent"}
    expected = pipeline(PROMPTS, height=height, width=width, **options).images
    assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()
    images, finite = model.decode(latents)
    assert images.shape == (2, *SIZE, 3)
    assert finite.all()


def test_the_models_own_size_is_the_default(folders):
    model = Diffusion(DiffusionConfig(model=str(folders["sd"])))
    assert model.side == 16
    assert torch.equal(model.initial_latents([1]), model.initial_latents([1], (16, 16)))


def source_rows(*seeds):
    return pa.table({name: column for name, column in plan(*seeds).items() if name in SOURCE_COLUMNS})


@pytest.fixture(scope="module")
def sources(folders):
    """A source stage with three sizes, and its records of six rows."""
    diffusion = {"model": str(folders["sd"]), "steps": 3, "guidance_scale": 1.0, "buckets": BUCKETS}
    stage = Source(Source.Config.model_validate({"diffusion": diffusion, "batch": 4}), TASKS)
    return stage, stage(source_rows(*range(6))).to_pylist()


def test_a_rows_size_is_chosen_by_its_seed(sources):
    _, records = sources
    shapes = [decode_rgb(record["source_image"]).shape[:2] for record in records]
    assert shapes == [tuple(BUCKETS[shape_of(seed, 3)]) for seed in range(6)]
    assert len(set(shapes)) == 3


def test_a_row_does_not_depend_on_neighbours_of_other_sizes(sources):
    stage, records = sources
    for seed in (0, 3, 5):
        [alone] = stage(source_rows(seed)).to_pylist()
        assert alone == records[seed]


def test_edits_have_the_sizes_of_their_sources(folders, sources):
    """Prompt-to-Prompt with self-attention, a soft mask and LocalBlend, at sizes with other token grids."""
    _, records = sources
    diffusion = {"model": str(folders["sd"]), "steps": 3, "guidance_scale": 1.0, "buckets": BUCKETS}
    config = {"diffusion": diffusion, "batch": 4, "self_max_tokens": 16, "blend_tokens": 16}
    stage = Edit(Edit.Config.model_validate(config), TASKS)
    pictures = [decode_rgb(record["source_image"]) for record in records]
    masks = [np.zeros(picture.shape[:2], np.uint8) for picture in pictures]
    for mask in masks:
        mask[4:12, 4:12] = 255
    encoded = [encode_png(mask) for mask in masks]
    columns = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), encoded)
    columns |= {"source_image": [record["source_image"] for record in records]}
    rows = pa.table({**plan(*range(6)), **columns, "boxes": [[[4.0, 4, 12, 12]]] * 6})
    edited = stage(rows).to_pylist()
    for record, picture, mask in zip(edited, pictures, masks, strict=True):
        assert record["status"] == "kept"
        anchor, target = (decode_rgb(png) for png in (record["anchor"], record["candidates"][0]["image"]))
        assert anchor.shape == target.shape == picture.shape
        assert np.abs(anchor.astype(int) - picture).max() <= 1
        far = np.ones(mask.shape, bool)
        far[:15, :15] = False  # the seam is three pixels wide
        assert (anchor[far] == target[far]).all()
        assert (anchor[mask > 0] != target[mask > 0]).any()
    [alone] = stage(rows.slice(1, 1)).to_pylist()
    assert alone == edited[1]


def test_layers_are_controlled_alike_at_every_size(folders, monkeypatch):
    """The counts of tokens in the manifest are those of a picture of the model's own size."""
    diffusion = {"model": str(folders["sd"]), "steps": 3, "guidance_scale": 1.0}
    config = {"diffusion": diffusion, "batch": 1, "self_max_tokens": 16, "blend_tokens": 16}
    stage = Edit(Edit.Config.model_validate(config), TASKS)
    controls = []
    kept = stage.drawing.model.sample
    monkeypatch.setattr(
        stage.drawing.model,
        "sample",
        lambda *given, **named: controls.append(given[-1]) or kept(*given, **named),
    )
    for height, width in ((16, 16), (16, 24), (24, 12)):
        ones = [encode_png(np.full((height, width), 255, np.uint8))]
        columns = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), ones)
        columns["source_image"] = [encode_png(np.zeros((height, width, 3), np.uint8))]
        stage(pa.table({**plan(1), **columns, "boxes": [[[0.0, 0, 8, 8]]]}))
    smallest = [(h // 4) * (w // 4) for h, w in ((16, 16), (16, 24), (24, 12))]
    assert [control.self_max_tokens for control in controls] == smallest
    assert [control.blend_tokens for control in controls] == smallest
    assert all(control.target_maps.any() for control in controls), "LocalBlend has seen its layers"


def test_masks_have_the_sizes_of_their_pictures(folders, sources):
    _, records = sources
    section = {
        "grounding": {"model": str(folders["detector"]), "box_threshold": 0, "text_threshold": 0},
        "segmenter": {"model": str(folders["segmenter"])},
        "min_area": 0,
        "max_area": 1,
        "batch": 4,
    }
    stage = Mask(Mask.Config.model_validate(section), TASKS)
    rows = pa.table(
        {
            **{name: column for name, column in plan(*range(6)).items() if name in ("id", "task")},
            "edited_object": ["a red car"] * 6,
            "original_object": ["a red car"] * 6,
            "source_image": [record["source_image"] for record in records],
        }
    )
    masked = stage(rows).to_pylist()
    for record, source in zip(masked, records, strict=True):
        shape = decode_rgb(source["source_image"]).shape[:2]
        assert decode_mask(record["soft_mask"]).shape == shape
        assert all(x1 <= shape[1] and y1 <= shape[0] for _, _, x1, y1 in record["boxes"])
    [alone] = stage(rows.slice(2, 1)).to_pylist()
    assert alone == masked[2]


def test_boxes_do_not_depend_on_neighbours_of_other_sizes(folders):
    everything = {"box_threshold": 0.0, "text_threshold": 0.0}
    detector = load_detector(GroundingConfig(model=str(folders["detector"]), **everything))
    rng = np.random.default_rng(0)
    shapes = [(64, 64), (40, 72), (64, 64), (72, 40)]
    images = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    together = detector.find(images, ["a red car"] * 4, batch=4)
    for image, found in zip(images, together, strict=True):
        [alone] = detector.find([image], ["a red car"], batch=4)
        np.testing.assert_array_equal(alone.boxes, found.boxes)
        assert alone.best_score == found.best_score


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"height": 16}, "set both or neither"),
        ({"height": 16, "width": 16, "buckets": BUCKETS}, "take one of them out"),
        ({"buckets": [[16]]}, "buckets"),
        ({"buckets": [[16, 4]]}, "greater than or equal to 8"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(keys, told):
    with pytest.raises(ValidationError, match=told):
        DiffusionConfig(model="m", **keys)


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"height": 16, "width": 30}, "diffusion.height and width"),
        ({"buckets": [[16, 16], [18, 16]]}, "diffusion.buckets"),
        ({"vae_tile": 10}, "diffusion.vae_tile"),
    ],
)
def test_sizes_that_do_not_suit_the_model_are_told_before_it_is_loaded(folders, keys, key):
    config = DiffusionConfig(model=str(folders["sd"]), **keys)
    [problem] = diffusion_problems(config)
    assert problem.startswith(key)
    assert "4 pixels" in problem
    with pytest.raises(ValueError, match=key):
        Diffusion(config)
