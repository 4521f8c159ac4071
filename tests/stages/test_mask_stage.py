from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.manifest.fingerprint import stage_identity
from stages.base import output_schema
from stages.mask.stage import Mask, TaskMask
from stages.models.grounding.detector import Detections
from stages.pictures.masks import without_specks
from stages.pictures.png import decode_grey, encode_png
from stages.tasks import load_tasks
from tests.stages.tiny_models import save_detector, save_segmenter
from toybox.world.render import render
from toybox.world.scene import sample_held_out_scene

ROOT = Path(__file__).parents[2]
TASKS = load_tasks(ROOT / "prompts", names=["local", "add", "global"])
TOYBOX = ROOT / "toybox" / "weights"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_detector(folder / "detector")
    save_segmenter(folder / "segmenter")
    return folder


def stage(folder, **keys) -> Mask:
    grounding = {"model": str(folder / "detector"), "box_threshold": 0, "text_threshold": 0}
    grounding |= keys.pop("grounding", {})
    section = {"segmenter": {"model": str(folder / "segmenter")}, "batch": 4, "min_area": 0, "max_area": 1}
    return Mask(Mask.Config.model_validate({**section, **keys, "grounding": grounding}), TASKS)


def table(tasks, image, edited="a blue car", original="a red car"):
    count = len(tasks)
    return pa.table(
        {
            "id": [f"row{i}" for i in range(count)],
            "task": tasks,
            "edited_object": [edited] * count,
            "original_object": [original] * count,
            "source_image": [encode_png(image)] * count,
        }
    )


IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def test_each_task_grounds_its_own_phrase(folder):
    written = stage(folder)(table(["local", "add", "global"], IMAGE))
    assert written.schema == output_schema(Mask.schema)
    assert written["id"].to_pylist() == ["row0", "row1", "row2"]
    assert written["phrase"].to_pylist() == ["a red car", "a blue car", ""]
    assert written["status"].to_pylist() == ["kept"] * 3


def test_a_task_that_grounds_nothing_may_change_the_whole_picture(folder):
    [row] = stage(folder)(table(["global"], IMAGE)).to_pylist()
    assert row["boxes"] == row["box_scores"] == []
    assert row["mask_area"] == 1
    for name in ("precise_mask", "smooth_mask", "soft_mask"):
        assert (decode_grey(row[name]) == 255).all()


def test_masks_are_grey_and_fit_the_boxes(folder):
    [row] = stage(folder, weights={"precise": 0, "smooth": 0, "box": 1})(table(["local"], IMAGE)).to_pylist()
    soft = decode_grey(row["soft_mask"])
    filled = np.zeros((64, 64), np.uint8)
    for x0, y0, x1, y1 in np.array(row["boxes"]):
        filled[int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))] = 255
    np.testing.assert_array_equal(soft, filled)
    assert set(np.unique(decode_grey(row["precise_mask"]))) <= {0, 255}
    assert row["mask_area"] == pytest.approx((decode_grey(row["precise_mask"]) == 255).mean())


def test_weights_1_0_0_write_the_precise_mask(folder):
    [row] = stage(folder, weights={"precise": 1, "smooth": 0, "box": 0})(table(["local"], IMAGE)).to_pylist()
    assert row["soft_mask"] == row["precise_mask"]


def test_a_phrase_that_is_not_found_is_rejected_with_its_nearest_miss(folder):
    [row] = stage(folder, grounding={"box_threshold": 1})(table(["local"], IMAGE)).to_pylist()
    assert (row["status"], row["reason"]) == ("rejected", "not_grounded")
    assert row["phrase"] == "a red car"
    assert len(row["boxes"]) == len(row["box_scores"]) == 1
    assert row["soft_mask"] is None


@pytest.mark.parametrize("phrase", ["", "  ", None])
def test_an_empty_phrase_is_rejected(folder, phrase):
    [row] = stage(folder)(table(["local"], IMAGE, original=phrase)).to_pylist()
    assert (row["status"], row["reason"]) == ("rejected", "not_grounded")


def test_a_mask_of_the_wrong_size_is_rejected_but_written(folder):
    [row] = stage(folder, min_area=1)(table(["local"], IMAGE)).to_pylist()
    assert (row["status"], row["reason"]) == ("rejected", "mask_area")
    assert row["mask_area"] < 1
    assert decode_grey(row["soft_mask"]).shape == (64, 64)


def test_too_many_boxes_are_rejected(folder):
    masker = stage(folder, max_boxes=1)
    two = np.array([[0, 0, 30, 30], [32, 32, 60, 60]], np.float32)
    masker.detector.find = lambda *_: [Detections(two, np.float32([0.9, 0.8]), two[0], 0.9)]
    [row] = masker(table(["local"], IMAGE)).to_pylist()
    assert (row["status"], row["reason"]) == ("rejected", "too_many_boxes")
    assert len(row["boxes"]) == 2


def test_plurals_are_the_union_over_boxes(folder):
    masker = stage(folder)
    boxes = np.array([[0, 0, 30, 30], [32, 32, 60, 60]], np.float32)
    masker.detector.find = lambda *_: [Detections(boxes, np.float32([0.9, 0.8]), boxes[0], 0.9)]
    [row] = masker(table(["local"], IMAGE)).to_pylist()
    [instances] = masker.segmenter.segment([IMAGE], [boxes], 4)
    union = np.any([without_specks(mask, masker.config.specks) for mask in instances], axis=0)
    np.testing.assert_array_equal(decode_grey(row["precise_mask"]) > 0, union)


@pytest.mark.skipif(
    not ((TOYBOX / "detector").exists() and (TOYBOX / "segmenter").exists()), reason="no toybox weights"
)
def test_finds_the_things_of_the_drawn_world():
    """Held-out scenes: the true mask is covered, and what is not there scores lower."""
    masker = stage(TOYBOX, batch=16, grounding={"box_threshold": 0.25, "text_threshold": 0.2})
    rng = np.random.default_rng(1)
    scenes = [sample_held_out_scene(rng, things=1) for _ in range(16)]
    drawn = [render(scene) for scene in scenes]
    wrong = ["a green star" if scene.things[0].kind != "star" else "a red house" for scene in scenes]

    def ground(phrases: list[str]) -> list[dict]:
        rows = [
            table(["local"], picture.image, original=phrase)
            for phrase, picture in zip(phrases, drawn, strict=True)
        ]
        return masker(pa.concat_tables(rows)).to_pylist()

    written = ground([scene.things[0].phrase for scene in scenes])
    kept = [
        (decode_grey(row["precise_mask"]) > 127, picture.masks[0] > 0.5)
        for row, picture in zip(written, drawn, strict=True)
        if row["status"] == "kept"
    ]
    assert len(kept) >= 12
    assert np.mean([(found & truth).sum() / (found | truth).sum() for found, truth in kept]) > 0.7
    present, absent = (np.mean([max(row["box_scores"]) for row in rows]) for rows in (written, ground(wrong)))
    assert present > absent + 0.03


def test_a_task_s_own_weights_dilation_and_blur_make_its_soft_mask(folder):
    precise = {"weights": {"precise": 1, "smooth": 0, "box": 0}}
    both = table(["local", "add"], IMAGE, edited="a red car")
    plain = stage(folder)(both).to_pylist()
    wide = {"dilate": 0.2, "blur": 0.05}
    local, add = stage(folder, tasks={"local": precise, "add": wide})(both).to_pylist()
    assert local["soft_mask"] == local["precise_mask"] == plain[0]["precise_mask"]
    assert local["smooth_mask"] == plain[0]["smooth_mask"], "keys that are not stated stay"
    [again] = stage(folder, **wide)(table(["add"], IMAGE, edited="a red car")).to_pylist()
    assert (add["smooth_mask"], add["soft_mask"]) == (again["smooth_mask"], again["soft_mask"])
    assert add["soft_mask"] != plain[1]["soft_mask"]


def test_a_run_without_values_by_task_keeps_its_fingerprint(folder):
    def identity(**keys):
        return stage_identity("mask", Mask, stage(folder, **keys).config, TASKS)

    assert not [key for key in identity() if "tasks" in key]
    assert identity(tasks={"local": {"dilate": 0.1}})["mask.tasks.local.dilate"] == 0.1


def test_values_for_a_task_that_does_not_exist_are_refused(folder):
    with pytest.raises(ValueError, match=r"mask\.tasks\.locl: there is no such task"):
        stage(folder, tasks={"locl": {"dilate": 0.1}})
    config = stage(folder).config.model_copy(update={"tasks": {"locl": TaskMask()}})
    assert any("mask.tasks.locl" in problem for problem in Mask.problems(config, TASKS))


def test_a_task_s_weights_sum_to_one(folder):
    with pytest.raises(ValueError, match=r"must sum to 1, not 0\.5"):
        stage(folder, tasks={"local": {"weights": {"precise": 0.5, "smooth": 0, "box": 0}}})
