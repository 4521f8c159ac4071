from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torchmetrics.functional.image.lpips import _LPIPS

from stages.base import Weights, output_schema
from stages.measure.counts import Counts, asked_changes
from stages.measure.regions import MARGIN, words_for
from stages.measure.stage import Measure
from stages.models.clip import direction, similarity
from stages.models.grounding.detector import NOTHING
from stages.models.lpips import Lpips, backbone_names
from stages.models.lpips_files import backbone_of
from stages.pictures.crop import square_around
from stages.pictures.png import encode_png
from stages.pictures.region import Region
from stages.score.evidence import Row
from stages.score.metrics import FURTHER, metrics_of
from stages.tasks import Tasks, load_tasks
from tests.stages.tiny_clip import save_tiny_clip
from tests.stages.tiny_estimators import save_tiny_dino
from tests.stages.tiny_tasks import tiny_task

SIDE = 64
REMOVE = {
    "original_object": "in_input",
    "edited_object": "not_in_output",
    "caption": "changed",
    "surroundings": "required",
}
ADD = {**REMOVE, "original_object": "absent", "edited_object": "in_output"}
TASKS = Tasks(
    {
        "local": tiny_task("local"),
        "remove": tiny_task("remove", index=1, fields=REMOVE),
        "add": tiny_task("add", index=2, fields=ADD, ground="edited_object", direction="reverse"),
        "background": tiny_task("background", index=4, region="background"),
        "global": tiny_task("global", index=5, region="all", ground="none"),
        "segment": tiny_task("segment", index=9, method="draw_mask", candidates=()),
    }
)


class Counted:
    """Finds as many objects as a picture's first pixel says, whatever the phrase."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def find(self, images, phrases, batch):
        self.asked += [(phrase, int(image[0, 0, 0])) for image, phrase in zip(images, phrases, strict=True)]
        return [
            replace(
                NOTHING, boxes=boxes(int(image[0, 0, 0])), scores=scores(int(image[0, 0, 0])), best_score=0.9
            )
            for image in images
        ]


def boxes(count: int) -> np.ndarray:
    """``count`` boxes beside each other, each found twice."""
    one = np.array([0, 0, 10, 10], np.float32)
    apart = [one + np.float32([12 * k, 0, 12 * k, 0]) for k in range(count)]
    return np.array([box + shift for box in apart for shift in (0, 1)], np.float32).reshape(-1, 4)


def scores(count: int) -> np.ndarray:
    return np.linspace(0.9, 0.5, 2 * count).astype(np.float32)


def picture(first: int = 0, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    image[0, 0, 0] = first
    return image


def row(task: str, anchor: np.ndarray, *candidates: np.ndarray, **columns) -> dict:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:32, 20:40] = 255
    masks = dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), encode_png(mask))
    return {
        "id": task,
        "task": task,
        "caption": "a red car in a meadow",
        "output_caption": "a blue car in a meadow",
        "edited_object": "a blue car",
        "original_object": "a red car",
        "surroundings": "a meadow",
        **masks,
        "boxes": [[20.0, 16.0, 40.0, 32.0]],
        "anchor": encode_png(anchor),
        "candidates": [{"image": encode_png(image), "mask": "soft"} for image in candidates],
        **columns,
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    alex = torchvision.models.alexnet(weights=None).features.state_dict()
    (root / "lpips").mkdir()
    save_file(
        {f"features.{name}": value for name, value in alex.items()}, root / "lpips" / "model.safetensors"
    )
    return {
        "clip": save_tiny_clip(root / "clip"),
        "dino": save_tiny_dino(root / "dino"),
        "lpips": str(root / "lpips"),
    }


def stage(folders, **keys) -> Measure:
    section = {"clip": {"model": str(folders["clip"])}, "grounding": {"model": "not loaded"}, "batch": 3}
    return Measure(Measure.Config.model_validate({**section, **keys}), TASKS)


def measured(measure: Measure, *rows: dict) -> list[list[dict]]:
    table = measure(pa.Table.from_pylist(list(rows)))
    assert table.schema == output_schema(Measure.schema)
    assert table["status"].to_pylist() == ["kept"] * len(rows), table["reason"].to_pylist()
    return table["measures"].to_pylist()


def test_nothing_is_measured_and_loaded_unless_a_key_says_so(folders):
    [[scores]] = measured(stage(folders), row("local", picture(), picture(seed=1)))
    assert scores == dict.fromkeys(FURTHER)


def test_each_metric_is_measured_for_the_tasks_that_it_suits(folders, monkeypatch):
    monkeypatch.setattr("stages.models.grounding.load_detector", lambda config: Counted())
    models = {key: {"model": folders[key]} for key in ("dino", "lpips")}
    everything = stage(folders, seam=True, counts=True, region_clip=True, **models)
    rows = [row(name, picture(), picture(seed=1)) for name in TASKS]
    for task, [scores] in zip(TASKS.values(), measured(everything, *rows), strict=True):
        suited = {metric.name for metric in metrics_of(task) if metric.name in FURTHER}
        assert {name for name, value in scores.items() if value is not None} == suited
    assert {"seam", "count_error"} == {m.name for m in metrics_of(TASKS["background"])} - {
        "judge_instruction", "judge_consistency", "judge_quality", "lpips_outside", "dino_outside",
    }  # fmt: skip
    assert not {m.name for m in metrics_of(TASKS["global"])} & set(FURTHER)


def test_values_do_not_depend_on_the_other_rows(folders):
    measure = stage(folders, seam=True, region_clip=True, dino={"model": folders["dino"]})
    rows = [row(task, picture(seed=k), picture(seed=k + 9)) for k, task in enumerate(TASKS)]
    alone = [measured(measure, one)[0] for one in rows]
    for together, single in zip(measured(measure, *rows), alone, strict=True):
        for one, other in zip(together, single, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize(
    ("task", "before", "after", "error"),
    [
        ("remove", 2, 1, 0),
        ("remove", 2, 2, 1),
        ("remove", 2, 0, 1),
        ("add", 1, 2, 0),
        ("add", 1, 3, 1),
        ("local", 2, 2, 2),  # both phrases are counted, and each should change by one
        ("background", 1, 1, 0),
        ("background", 1, 0, 1),
        ("background", 1, 3, 2),
    ],
)
def test_an_error_is_counted_for_each_object_more_or_fewer_than_asked(task, before, after, error):
    i, tar = picture(before), picture(after, seed=1)
    anchor, candidate = (tar, i) if task == "add" else (i, tar)
    given = Row(TASKS[task], row(task, anchor, candidate))
    assert Counts(Counted()).measure([given], 8) == [[{"count_error": error}]]


def test_as_many_objects_change_as_were_grounded():
    two = row("remove", picture(3), picture(1, seed=1), boxes=[[0.0, 0, 9, 9], [20.0, 16, 40, 32]])
    assert Counts(Counted()).measure([Row(TASKS["remove"], two)], 8) == [[{"count_error": 0}]]


def test_each_phrase_is_sought_once_in_each_picture():
    detector = Counted()
    work = [
        Row(TASKS[task], row(task, picture(1), picture(2), picture(3)))
        for task in ("local", "remove", "global")
    ]
    Counts(detector).measure(work, 8)
    local = [(phrase, k) for phrase in ("a blue car", "a red car") for k in (1, 2, 3)]
    assert sorted(detector.asked) == sorted([*local, *[("a blue car", k) for k in (1, 2, 3)]])


def test_a_phrase_that_cannot_be_counted_has_no_error_and_a_sick_detector_fails_the_row(folders, monkeypatch):
    def find(images, phrases, batch):
        sick = [phrase == "a sick car" for phrase in phrases]
        return [
            replace(NOTHING, best_score=float("nan")) if s else replace(NOTHING, unknown=("mauve",))
            for s in sick
        ]

    detector = Counted()
    detector.find = find
    monkeypatch.setattr("stages.models.grounding.load_detector", lambda config: detector)
    measure = stage(folders, counts=True)
    [[scores]] = measured(measure, row("local", picture(), picture(seed=1)))
    assert scores["count_error"] is None
    sick = row("remove", picture(), picture(seed=1), edited_object="a sick car")
    [record] = measure(pa.Table.from_pylist([sick])).to_pylist()
    assert record["status"] == "failed"
    assert "count_error of candidate 0 is not finite" in record["reason"]


def test_every_shipped_task_with_objects_says_how_many_change():
    changes = {name: asked_changes(task) for name, task in load_tasks("prompts").items()}
    assert changes["remove"] == {"edited_object": -1}
    assert changes["add"] == {"edited_object": 1}
    assert changes["background"] == {"original_object": 0}
    for name in ("local", "color", "texture"):
        assert changes[name] == {"edited_object": 1, "original_object": -1}


def test_the_place_is_compared_with_the_words_for_it(folders):
    measure = stage(folders, region_clip=True)
    clip = measure.instruments[0].clip
    anchor, drawn = picture(), picture(seed=1)
    place = square_around(Region.from_row(row("local", anchor)), MARGIN)
    assert list(place) == [slice(9, 39), slice(15, 45)]
    for task, fields in {
        "local": ("a red car", "a blue car"),
        "remove": ("a red car", "a meadow"),
        "add": ("a meadow", "a blue car"),
    }.items():
        assert [row(task, anchor)[name] for name in words_for(TASKS[task])] == list(fields)
        [[scores]] = measured(measure, row(task, anchor, drawn))
        i, tar = (drawn, anchor) if task == "add" else (anchor, drawn)
        before, after = clip.encode_images([i[place], tar[place]], 2)
        said = clip.encode_texts(list(fields), 2)
        assert scores["region_text"] == pytest.approx(similarity(after, said[1]), abs=1e-5)
        assert scores["region_direction"] == pytest.approx(direction(before, after, *said), abs=1e-5)


def test_a_square_lies_inside_the_picture():
    def around(x0, y0, x1, y1, height=40, width=60):
        mask = np.zeros((height, width), np.float32)
        return square_around(Region(mask, np.array([[x0, y0, x1, y1]], np.float32)), 0.25)

    assert around(0, 0, 8, 4) == (slice(0, 12), slice(0, 12))
    assert around(52, 36, 60, 40) == (slice(28, 40), slice(48, 60))
    assert around(0, 0, 60, 40) == (slice(0, 40), slice(10, 50))
    assert square_around(Region(np.zeros((8, 8), np.float32), np.zeros((0, 4), np.float32)), 0.25) is None


def test_lpips_is_that_of_torchmetrics_and_differs_where_the_pictures_do(folders):
    lpips = Lpips(Weights(model=folders["lpips"]), "measure.lpips.model")
    first, other = picture(), picture(seed=1)
    half = np.where((np.arange(SIDE) < 32)[None, :, None], first, other)
    same, changed, partly = lpips.maps(first, [first, other, half], 2)
    assert same.max() < 1e-9
    assert partly[:, 48:].mean() > 5 * partly[:, :16].mean()

    def tensor(image):
        return torch.from_numpy(image.transpose(2, 0, 1)[None]).float() / 127.5 - 1

    library = _LPIPS(net="alex", spatial=True, pnet_rand=True)
    library.net.load_state_dict(lpips.network.net.state_dict())
    with torch.inference_mode():
        expected = library(tensor(first), tensor(other))[0, 0].numpy()
    np.testing.assert_allclose(changed, expected, atol=1e-5)


def test_the_vgg_of_the_hub_has_the_names_and_shapes_of_a_backbone():
    with torch.device("meta"):
        published = timm.create_model("vgg16.tv_in1k").state_dict()
        network = _LPIPS(net="vgg", spatial=True, pnet_rand=True, pretrained=False).net.state_dict()
    assert backbone_of({name: tuple(tensor.shape) for name, tensor in published.items()}) == "vgg"
    for ours, theirs in backbone_names(network).items():
        assert published[theirs].shape == network[ours].shape


def test_what_changes_inside_is_invisible_to_the_metrics_of_the_outside(folders):
    models = {key: {"model": folders[key]} for key in ("dino", "lpips")}
    measure = stage(folders, **models)
    anchor = picture()
    inside, outside = anchor.copy(), anchor.copy()
    inside[16:32, 20:40] = 255 - inside[16:32, 20:40]
    outside[50:60, 50:60] = 255 - outside[50:60, 50:60]
    [[first, second]] = measured(measure, row("local", anchor, inside, outside))
    for metric in ("lpips_outside", "dino_outside"):
        assert first[metric] == pytest.approx(0, abs=1e-5)
        assert second[metric] > 1e-4
        [[backwards]] = measured(measure, row("add", anchor, outside))
        assert backwards[metric] == pytest.approx(second[metric], rel=1e-3)


@pytest.mark.parametrize("broken", ["missing", "other", "pickle"])
def test_a_backbone_that_cannot_be_used_is_named_with_its_key(folders, tmp_path, broken):
    if broken == "other":
        save_file({"features.0.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    if broken == "pickle":
        (tmp_path / "model.pth").write_bytes(b"a pickle")
    section = {"clip": {"model": str(folders["clip"])}, "grounding": {"model": "not loaded"}}
    config = Measure.Config.model_validate({**section, "lpips": {"model": str(tmp_path)}})
    told = list(Measure.problems(config, TASKS))
    assert len(told) == 1
    assert told[0].startswith("measure.lpips.model: ")
    with pytest.raises(OSError, match=r"measure\.lpips\.model"):
        Measure(config, TASKS)
