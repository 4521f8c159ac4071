"""Photographs through the source and edit stages: I is the file's own pixels, and Tar too beside the edit."""

from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from stages.base import PICTURES
from stages.edit.stage import Edit, EditPhotographs
from stages.mask.stage import Mask
from stages.pictures.png import decode_rgb, encode_png
from stages.rounds.again import PhotographsAgain
from stages.source.photographs import Photographs
from stages.source.stage import Source
from stages.tasks import Tasks
from tests.stages.drawn_families import KINDS
from tests.stages.test_finite import plan
from tests.stages.tiny_pipelines import save_flux, save_sd3, save_sdxl, save_stable_diffusion
from tests.stages.tiny_tasks import tiny_task

SIDE = 16
SEEDS = (0, 1, 2)


def tasks(**keys) -> Tasks:
    content = {"metrics": [], "composite": True, "candidates": [{"mask": "soft", "cross_until": 0.5}], **keys}
    return Tasks({"local": tiny_task(**content)})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "sd": save_stable_diffusion(root / "sd"),
        "sdxl": save_sdxl(root / "sdxl"),
        "flux": save_flux(root / "flux"),
        "sd35": save_sd3(root / "sd35"),
        **{name: kind.save(root / name) for name, kind in KINDS.items()},
    }


def photograph(number: int, width: int = 40, height: int = 32) -> bytes:
    """Smooth colours, as JPEG."""
    rng, content = np.random.default_rng(number), BytesIO()
    small = Image.fromarray(rng.integers(0, 255, (4, 5, 3), np.uint8))
    small.resize((width, height), Image.Resampling.BICUBIC).save(content, "JPEG")
    return content.getvalue()


def config(folder, **keys) -> dict:
    drawn = {"model": str(folder), "steps": 4, "guidance_scale": 3.0, **keys}
    return {"diffusion": drawn, "batch": 3}


def given(*pictures: bytes | None, flaws: tuple[str, ...] = ()) -> pa.Table:
    names = ("id", "caption", "task", "seed", "output_caption", "surroundings")
    rows = {name: column for name, column in plan(*range(len(pictures))).items() if name in names}
    flaws = flaws or ("",) * len(pictures)
    return pa.table({**rows, "picture_bytes": pa.array(pictures, pa.binary()), "picture_flaw": list(flaws)})


def sources(folder, *pictures: bytes | None, flaws: tuple[str, ...] = (), **keys) -> list[dict]:
    stage = Photographs(Photographs.Config.model_validate(config(folder, **keys)), tasks())
    return stage(given(*pictures, flaws=flaws)).to_pylist()


def edited(
    folder,
    own_tasks: Tasks,
    pictures: list[bytes],
    keys: dict,
    words: dict[str, str] | None = None,
    kind=EditPhotographs,
    **settings,
) -> list[dict]:
    """The edits of pictures with a region in their middle."""
    records, boxes = [], []
    for picture in pictures:
        height, width = decode_rgb(picture).shape[:2]
        mask = np.zeros((height, width), np.uint8)
        top, bottom = height // 3, height * 2 // 3
        mask[top:bottom, top:bottom] = 255
        records.append(encode_png(mask))
        boxes.append([[float(top), top, bottom, bottom]])
    masks = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), records)
    rows = {**plan(*range(len(pictures))), **masks, "source_image": pictures, "boxes": boxes}
    for name, text in (words or {}).items():
        rows[name] = [text] * len(pictures)
    content = {**config(folder, **keys), "self_max_tokens": 16, "blend_tokens": 16, **settings}
    return kind(Edit.Config.model_validate(content), own_tasks)(pa.table(rows)).to_pylist()


def test_the_source_is_the_middle_of_the_picture_in_the_models_size(folders):
    data = photograph(1)
    [row] = sources(folders["sd"], data)
    middle = Image.open(BytesIO(data)).crop((4, 0, 36, 32)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert row["status"] == "kept"
    assert np.abs(decode_rgb(row["source_image"]).astype(int) - np.asarray(middle)).max() <= 2


def test_a_picture_takes_the_nearest_bucket_whatever_its_seed(folders):
    shapes = [(36, 32), (60, 40), (30, 60)]
    made = sources(
        folders["sd"], *(photograph(1, *shape) for shape in shapes), buckets=[(16, 16), (16, 24), (24, 12)]
    )
    assert [decode_rgb(row["source_image"]).shape[:2] for row in made] == [(16, 16), (16, 24), (24, 12)]


def test_each_row_without_a_usable_picture_has_its_own_reason(folders):
    pictures = (None, None, photograph(1)[:60], photograph(1, 9, 5), None, photograph(1))
    flaws = ("picture_missing", "picture_outside", "", "", "picture_changed", "")
    made = sources(folders["sd"], *pictures, flaws=flaws)
    assert [row["status"] for row in made] == ["rejected"] * 4 + ["failed", "kept"]
    reasons = ["picture_missing", "picture_outside", "picture_broken", "picture_too_small"]
    assert [row["reason"] for row in made[:4]] == reasons
    assert made[4]["reason"].startswith(
        "PictureChangedError: the picture is not the planned one: put it back"
    )


def test_another_round_has_the_same_picture_and_another_seed(folders):
    table = given(photograph(1), photograph(2))
    settings = Photographs.Config.model_validate(config(folders["sd"]))
    first, again = (kind(settings, tasks())(table).to_pylist() for kind in (Photographs, PhotographsAgain))
    assert [row["source_image"] for row in again] == [row["source_image"] for row in first]
    assert [row["round"] for row in again] == [2, 2]
    assert not {row["seed"] for row in again} & {0, 1}


SQUARE = {"height": SIDE, "width": SIDE}
FLOW = {"sampler": "flow_euler", **SQUARE}
WAYS = {
    "whole": ({}, {}),
    "in its region": ({}, {"region": "schedule"}),
    "in its region's support": ({}, {"region": "support"}),
    "late": ({}, {"skip": 0.5}),
    "without guidance": ({"guidance_scale": 1.0}, {}),
    "with a negative prompt": ({"negative_prompt": "a red car"}, {"region": "schedule"}),
    "by a sampler that adds noise": ({"sampler": "euler_ancestral"}, {}),
    "by few steps": ({"sampler": "lcm", "guidance_scale": 1.0, "steps": 2}, {"region": "support"}),
    "held": ({**FLOW, "guidance_scale": 3.0}, {"hold": "exact", "mask_attention": False}),
    "held in its region": (
        {**FLOW, "guidance_scale": 0.0},
        {"hold": "exact", "mask_attention": False, "region": "schedule"},
    ),
    "held in its region, guided": (FLOW, {"hold": "exact", "mask_attention": False, "region": "schedule"}),
    "held, by ddim": (SQUARE, {"hold": "exact", "mask_attention": False}),
    "by euler": ({"sampler": "euler", **SQUARE}, {}),
}
OF_OTHER_FAMILIES = [("sdxl", "in its region"), ("flux", "held in its region")]
OF_OTHER_FAMILIES += [(family, "held in its region, guided") for family in ("qwen", "zimage")]
OF_OTHER_FAMILIES += [("pixart", "held, by ddim"), ("pixart", "by euler")]
OF_OTHER_FAMILIES += [(family, "held") for family in ("sd35", "qwen", "zimage", "sana")]


@pytest.mark.parametrize(
    ("family", "way"), [*(("sd", way) for way in WAYS if "held" not in way), *OF_OTHER_FAMILIES]
)
def test_a_photograph_is_untouched_outside_the_mask_and_its_seam(folders, family, way):
    keys, settings = WAYS[way]
    pictures = [row["source_image"] for row in sources(folders[family], *map(photograph, SEEDS), **keys)]
    for picture, record in zip(
        pictures, edited(folders[family], tasks(), pictures, keys, **settings), strict=True
    ):
        assert record["status"] == "kept", record["reason"]
        assert record["anchor"] == picture, "the published I is the file's own picture"
        before, target = decode_rgb(picture), decode_rgb(record["candidates"][0]["image"])
        outside = np.ones((SIDE, SIDE), bool)
        outside[2:13, 2:13] = False  # the seam is three pixels wide
        assert (before[outside] == target[outside]).all()
        assert (before[5:10, 5:10] != target[5:10, 5:10]).any()
        assert record["source_drift"] > 0, "the VAE of this test cannot draw photographs"


@pytest.mark.parametrize("method", ["draw_box", "draw_mask", "sketch", "adjust", "draw_text"])
def test_painted_tasks_take_photographs(folders, method):
    keys = {"height": 96, "width": 96}
    data = [photograph(seed, 200, 160) for seed in SEEDS]
    pictures = [row["source_image"] for row in sources(folders["sd"], *data, **keys)]
    painted = tasks(method=method, candidates=[], composite=False)
    words = {"instruction": "brighten the picture strongly", "edited_object": 'a car that says "GO"'}
    for picture, record in zip(pictures, edited(folders["sd"], painted, pictures, keys, words), strict=True):
        assert record["status"] == "kept", record["reason"]
        assert record["anchor"] == picture
        assert record["candidates"][0]["image"] != picture


def test_pictures_of_several_buckets_are_edited_in_one_batch_as_alone(folders):
    keys = {"buckets": [(16, 16), (16, 24), (24, 16)]}
    shapes = [(36, 32), (60, 40), (40, 60)]
    made = sources(folders["sd"], *(photograph(k, *shape) for k, shape in enumerate(shapes)), **keys)
    pictures = [row["source_image"] for row in made]
    together = edited(folders["sd"], tasks(), pictures, keys)
    assert edited(folders["sd"], tasks(), pictures[:1], keys) == together[:1]
    assert [record["anchor"] for record in together] == pictures


def test_an_edit_with_the_same_caption_is_the_photograph_after_the_vae(folders, monkeypatch):
    """With the same guidance the edit stage draws it as the source: the VAE's round trip, and no more."""
    monkeypatch.setattr("stages.edit.draw.anchor_and_edit_prompts", lambda task, row: (row["caption"],) * 2)
    pictures = [row["source_image"] for row in sources(folders["sd"], photograph(4))]
    [record] = edited(folders["sd"], tasks(composite=False), pictures, {}, source_guidance=3.0)
    target, picture = (
        decode_rgb(png).astype(float) for png in (record["candidates"][0]["image"], pictures[0])
    )
    assert abs(np.abs(target - picture).mean() / 255 - record["source_drift"]) < 2e-3
    [drawn] = edited(folders["sd"], tasks(composite=False), pictures, {}, kind=Edit)
    assert abs(drawn["source_drift"] - record["source_drift"]) > 1e-3, "a drawn source is another picture"


def test_a_pictures_row_has_its_own_guidance_unless_the_model_has_none(folders):
    pictures = [row["source_image"] for row in sources(folders["sd"], photograph(4))]
    for keys, differ in (({}, True), ({"guidance_scale": 1.0}, False)):
        made = [
            edited(folders["sd"], tasks(), pictures, keys, source_guidance=scale) for scale in (1.0, 2.0, 1.0)
        ]
        assert made[0] == made[2]
        assert (made[0] != made[1]) is differ


def test_a_reverse_task_is_refused(folders):
    reverse = tasks(direction="reverse")
    settings = Photographs.Config.model_validate(config(folders["sd"]))
    [problem] = Photographs.problems(settings, reverse)
    assert problem.startswith("captions.picture: the task local draws its input last")
    assert not [*Photographs.problems(settings, tasks())]
    assert not [*Source.problems(settings, reverse)]


def test_previews_of_given_pictures_are_refused(folders):
    settings = Photographs.Config.model_validate({**config(folders["sd"]), "preview_steps": 2})
    [problem] = Photographs.problems(settings, tasks())
    assert problem.startswith("source.preview_steps: ")


@pytest.mark.parametrize("key", ["skip", "source_guidance"])
def test_settings_of_given_pictures_are_refused_without_them(folders, key):
    settings = Edit.Config.model_validate({**config(folders["sd"]), key: 0.2})
    [problem] = Edit.problems(settings, tasks())
    assert problem.startswith(f"edit.{key} is for given pictures: ")
    assert not [*EditPhotographs.problems(settings, tasks())]


def test_only_a_run_with_pictures_reads_them():
    assert PICTURES not in Source.reads
    assert Source.beside({"source"}) is Source
    assert Source.beside({"source", PICTURES}) is Photographs
    assert Mask.beside({"source", PICTURES}) is Mask
