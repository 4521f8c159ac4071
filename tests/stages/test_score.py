from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from stages.models.clip import direction
from stages.models.config import ClipConfig, ProbeWeights
from stages.models.grounding import GroundingConfig
from stages.models.grounding.detector import NOTHING
from stages.pictures.png import encode_png
from stages.score import stage as score_stage
from stages.score.evidence import Evidence, Row, Seen
from stages.score.metrics import MEASURED, check_metrics
from stages.score.stage import Score
from stages.tasks import Tasks
from tests.stages.test_lettering import BOX, sign
from tests.stages.tiny_clip import save_tiny_clip
from tests.stages.tiny_estimators import save_tiny_depth, save_tiny_dino
from tests.stages.tiny_tasks import CHANGED, tiny_task

CLIP = ("clip_text_input", "clip_text_output", "clip_direction", "clip_image")
PIXELS = ("change_inside", "change_outside", "change_outside_raw", "ssim_outside")
ADD_FIELDS = {"original_object": "absent", "edited_object": "in_output", "caption": "changed"}
REMOVE_FIELDS = {"original_object": "in_input", "edited_object": "not_in_output", "caption": "changed"}
SAME_FIELDS = {"original_object": "in_input", "edited_object": "absent", "caption": "same"}

TASKS = Tasks(
    {
        "local": tiny_task("local", metrics=(*CLIP, *PIXELS, "present", "present_overlap")),
        "remove": tiny_task("remove", fields=REMOVE_FIELDS, metrics=("absent",)),
        "add": tiny_task("add", direction="reverse", fields=ADD_FIELDS, metrics=(*CLIP, "present")),
        "global": tiny_task("global", region="all", ground="none", metrics=(*CLIP, *PIXELS)),
        "detect": tiny_task(
            "detect", fields=SAME_FIELDS, method="draw_box", candidates=(), metrics=(*CLIP, "change_inside")
        ),
    }
)


class RednessDetector:
    """Finds anything to the degree to which a picture is red; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, images, phrases, batch):
        self.asked += phrases
        box = np.array([32, 32, 64, 96], np.float32)
        return [
            replace(
                NOTHING, best_score=redness, best_box=box, all_boxes=box[None], all_scores=np.array([redness])
            )
            for redness in (float(image[..., 0].mean() / 255) for image in images)
        ]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def detector(monkeypatch):
    detector = RednessDetector()
    monkeypatch.setattr(score_stage, "load_detector", lambda config: detector)
    return detector


@pytest.fixture
def score(clip_folder, detector):
    config = Score.Config(
        batch=4, clip=ClipConfig(model=str(clip_folder)), grounding=GroundingConfig(model="not loaded")
    )
    return Score(config, TASKS)


def picture(red: int = 0, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    image[..., 0] = red
    return image


def row(task: str, anchor: np.ndarray, *candidates: np.ndarray, **columns) -> dict:
    mask = np.zeros((128, 128), np.uint8)
    mask[32:64, 32:64] = 255
    return {
        "id": task,
        "task": task,
        "caption": "a red car in a meadow",
        "instruction": "make the car blue",
        "output_caption": "a blue car in a meadow",
        "edited_object": "a blue car",
        "original_object": "a red car",
        "precise_mask": encode_png(mask),
        "boxes": [[32, 32, 64, 64]],
        "anchor": encode_png(anchor),
        "candidates": [
            {"image": encode_png(image), "mask": "soft", "change_outside_raw": 0.25, "contrast_raw": None}
            for image in candidates
        ],
        **columns,
    }


def scores_of(score: Score, *rows: dict) -> list[list[dict]]:
    table = score(pa.Table.from_pylist(list(rows)))
    assert table["status"].to_pylist() == ["kept"] * len(rows), table["reason"].to_pylist()
    return table["scores"].to_pylist()


def test_only_the_listed_metrics_are_computed(score):
    rows = [row(name, picture(), picture(seed=1)) for name in TASKS]
    for task, [scores] in zip(TASKS.values(), scores_of(score, *rows), strict=True):
        assert list(scores) == list(MEASURED)
        absent = {name for name, value in scores.items() if value is None}
        inapplicable = {"change_outside", "ssim_outside"} if task.region == "all" else set()
        assert absent == (set(MEASURED) - set(task.metrics)) | inapplicable


def test_equal_captions_have_no_direction(score):
    same = row("detect", picture(), picture(seed=1), output_caption="a red car in a meadow")
    [[scores]] = scores_of(score, same)
    assert scores["clip_direction"] is None
    assert scores["clip_image"] is not None


def test_a_reverse_task_is_scored_with_the_anchor_as_target(score, detector):
    anchor, candidate = picture(red=255), picture(red=51, seed=1)
    [[forward]] = scores_of(score, row("local", anchor, candidate))
    [[reverse]] = scores_of(score, row("add", anchor, candidate))
    assert forward["present"] == pytest.approx(0.2)
    assert reverse["present"] == pytest.approx(1.0)
    assert detector.asked == ["a blue car", "a blue car"]
    [[expected]] = scores_of(score, row("local", candidate, anchor))
    assert {m: reverse[m] for m in CLIP} == pytest.approx({m: expected[m] for m in CLIP}, abs=1e-6)


def test_absent_is_asked_of_the_target_for_what_was_removed(score, detector):
    gone = row("remove", picture(red=255), picture(red=51), edited_object="the red car")
    [[scores]] = scores_of(score, gone)
    assert scores["absent"] == pytest.approx(0.2)
    assert detector.asked == ["the red car"]


def test_a_reverse_task_s_target_is_looked_at_once(score, detector):
    [scores] = scores_of(score, row("add", picture(red=255), picture(), picture(seed=1), picture(seed=2)))
    assert [s["present"] for s in scores] == [1.0] * 3
    assert len(detector.asked) == 1


def test_a_detection_counts_how_much_of_it_lies_where_the_edit_is(score):
    [[scores]] = scores_of(score, row("local", picture(), picture(200)))
    assert scores["present_overlap"] == pytest.approx(0.5), "the lower half of the box is outside the mask"
    [[scores]] = scores_of(score, row("remove", picture(), picture(200)))
    assert scores["present_overlap"] is None


def test_structure_is_compared_where_models_are_configured(clip_folder, detector, tmp_path):
    metrics = ("dino", "depth_change", "clipped", "contrast")
    config = Score.Config(
        batch=4,
        clip=ClipConfig(model=str(clip_folder)),
        grounding=GroundingConfig(model="not loaded"),
        dino={"model": save_tiny_dino(tmp_path / "dino")},
        depth={"model": save_tiny_depth(tmp_path / "depth")},
    )
    score = Score(config, Tasks({"local": tiny_task("local", metrics=metrics)}))
    white = np.full((128, 128, 3), 255, np.uint8)
    [[same, other, blank]] = scores_of(score, row("local", picture(), picture(), picture(200, seed=3), white))
    assert same["dino"] == pytest.approx(1, abs=1e-5)
    assert same["depth_change"] == pytest.approx(0, abs=1e-5)
    assert other["dino"] < 1
    assert other["depth_change"] > 0
    assert (blank["clipped"], blank["contrast"]) == (1, pytest.approx(0, abs=1e-6))
    assert other["contrast"] > 0.05
    assert other["clipped"] < 0.01


def test_written_text_is_read_in_the_target_where_it_was_grounded(clip_folder, detector):
    config = Score.Config(
        batch=4,
        clip=ClipConfig(model=str(clip_folder)),
        grounding=GroundingConfig(model="not loaded"),
        ocr=True,
    )
    score = Score(config, Tasks({"text": tiny_task("text", metrics=("text_read",))}))
    written = {"edited_object": 'a sign that says "SHUT"', "boxes": [list(map(float, BOX))]}
    mask = encode_png(np.full((120, 200), 255, np.uint8))
    given = row("text", sign("OPEN"), sign("SHUT"), sign("OPEN"), precise_mask=mask, **written)
    [[right, unchanged]] = scores_of(score, given)
    assert right["text_read"] > 0.9
    assert unchanged["text_read"] < 0.5


def test_an_empty_phrase_is_not_looked_for(score, detector):
    [[scores]] = scores_of(score, row("local", picture(), picture(), edited_object=""))
    assert scores["present"] is None
    assert detector.asked == []


def test_the_outside_is_measured_before_and_after_compositing(score):
    anchor = picture()
    inside, outside = anchor.copy(), anchor.copy()
    inside[32:64, 32:64] = 255 - inside[32:64, 32:64]
    outside[100:] = 255 - outside[100:]
    [[only_inside, only_outside]] = scores_of(score, row("local", anchor, inside, outside))
    assert only_inside["change_outside"] == 0
    assert only_inside["ssim_outside"] == pytest.approx(1, abs=1e-5)
    assert only_inside["change_inside"] > 0.3
    assert only_outside["change_inside"] == 0
    assert only_outside["change_outside"] > 0.05
    assert only_outside["ssim_outside"] < 0.95
    assert only_inside["change_outside_raw"] == 0.25


def test_an_unchanged_target_shows_in_the_metrics(score):
    [[scores]] = scores_of(score, row("local", picture(), picture()))
    assert scores["clip_direction"] == 0
    assert scores["clip_image"] == pytest.approx(1)
    assert scores["change_inside"] == 0


def test_a_metric_that_is_not_a_number_fails_its_row_only(score):
    broken = row("local", picture(), picture(seed=1))
    broken["candidates"][0]["change_outside_raw"] = float("nan")
    table = score(pa.Table.from_pylist([broken, row("remove", picture(), picture())]))
    assert table["status"].to_pylist() == ["failed", "kept"]
    assert "change_outside_raw of candidate 0" in table["reason"][0].as_py()


EVERY = Tasks({"every": tiny_task("every", metrics=tuple(MEASURED), region="object")})


def evidence(**spoilt) -> Evidence:
    """A pair in whose evidence every model has said something finite, besides ``spoilt``."""
    box = np.array([32, 32, 64, 64], np.float32)
    found = replace(NOTHING, best_score=0.4, best_box=box, all_boxes=box[None], all_scores=np.array([0.4]))
    record = row("every", picture(), picture(red=255, seed=1))
    candidate = {"change_outside_raw": 0.25, "contrast_raw": 0.2}
    record["candidates"][0] |= {name: spoilt.pop(name, value) for name, value in candidate.items()}
    captions = record["caption"], record["output_caption"]
    seen = {
        "clip": np.eye(2, 8, dtype=np.float32) + 0.1,
        "texts": dict(zip(captions, np.eye(2, 8, 2, dtype=np.float32) + 0.1, strict=True)),
        "detections": {(p, k): found for p in ("a blue car", "a red car") for k in (0, 1)},
        "dino": [np.ones(4), np.ones(4)],
        "depth": [np.ones((4, 4)), np.zeros((4, 4))],
        "read": [0.3, 0.4],
        "probed": {"nsfw": [0.3, 0.2], "aesthetic": [0.2, 0.3]},
    }
    return Evidence(Row(EVERY["every"], record), Seen(**(seen | spoilt)), 0)


def metrics_made_of(**spoilt) -> dict[str, float | None]:
    """The metrics that differ from those of evidence in which everything is finite."""
    whole, sick = score_stage._scores(evidence()), score_stage._scores(evidence(**spoilt))
    return {name: sick[name] for name in MEASURED if sick[name] != whole[name]}


NAN = float("nan")
SPOILT = replace(NOTHING, best_score=NAN)
ASKED = {(phrase, k): SPOILT for phrase in ("a blue car", "a red car") for k in (0, 1)}


@pytest.mark.parametrize(
    ("spoilt", "names"),
    [
        ({"clip": np.array([[NAN] * 8, [0.1] * 8])}, {"clip_text_input", "clip_direction", "clip_image"}),
        ({"clip": np.array([[0.1] * 8, [NAN] * 8])}, {"clip_text_output", "clip_direction", "clip_image"}),
        ({"detections": ASKED}, {"present", "present_overlap", "absent", "absent_before"}),
        ({"dino": [np.ones(4), np.full(4, NAN)]}, {"dino"}),
        ({"depth": [np.full((4, 4), NAN), np.ones((4, 4))]}, {"depth_change"}),
        ({"read": [0.3, NAN]}, {"text_read"}),
        ({"probed": {"nsfw": [0.3, NAN], "aesthetic": [0.2, NAN]}}, {"nsfw", "aesthetic"}),
        ({"probed": {"nsfw": [NAN, 0.2], "aesthetic": [NAN, 0.3]}}, {"nsfw", "aesthetic"}),
        ({"change_outside_raw": NAN}, {"change_outside_raw"}),
        ({"contrast_raw": NAN}, {"contrast"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else "",
)
def test_no_metric_hides_that_what_it_is_made_of_is_not_finite(spoilt, names):
    changed = metrics_made_of(**spoilt)
    sick = {name for name, value in changed.items() if value is not None and not np.isfinite(value)}
    assert names <= sick, changed


def test_scores_do_not_depend_on_the_other_rows(score):
    rows = [row(name, picture(), picture(seed=k), picture(seed=9)) for k, name in enumerate(TASKS)]
    assert scores_of(score, *rows) == [scores_of(score, r)[0] for r in rows]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metrics": ("clip_img",)}, "'clip_img' is unknown"),
        ({"metrics": ("present",), "fields": SAME_FIELDS}, "'present' needs fields.edited_object"),
        ({"metrics": ("absent",), "fields": SAME_FIELDS}, "'absent' needs"),
        ({"metrics": ("mask_fit",), "ground": "none"}, "'mask_fit' needs boxes"),
    ],
)
def test_a_metric_that_the_task_cannot_have_is_an_error(keys, message):
    with pytest.raises(ValueError, match=rf"prompts/local\.yaml: key 'metrics': {message}"):
        check_metrics(Tasks({"local": tiny_task(**keys)}))


def test_what_must_be_gone_follows_from_the_fields():
    def sought(fields: dict) -> str:
        task = tiny_task(fields=fields)
        record = {"edited_object": "edited", "original_object": "original"}
        return Row(task, record).phrase(MEASURED["absent"].look(task))

    assert sought(REMOVE_FIELDS) == "edited"
    assert sought(CHANGED) == "original"
    assert sought(SAME_FIELDS) == ""


def test_what_is_added_is_looked_for_in_i_where_the_edit_is_and_in_tar(score, detector):
    metrics = ("present", "absent_before")
    score.tasks = Tasks({"add": tiny_task("add", direction="reverse", fields=ADD_FIELDS, metrics=metrics)})
    frame = [[32, 32, 64, 96]]
    [[there]] = scores_of(score, row("add", picture(red=255), picture(red=51), boxes=frame))
    assert there["present"] == pytest.approx(1.0)
    assert there["absent_before"] == pytest.approx(0.2)
    [[elsewhere]] = scores_of(
        score, row("add", picture(red=255), picture(red=51), boxes=[[90, 90, 120, 120]])
    )
    assert elsewhere["absent_before"] == 0, "another one of its kind, elsewhere, is no harm"


def test_a_phrase_that_the_detector_does_not_know_has_no_score(score, monkeypatch):
    unknown = replace(NOTHING, unknown=("zebra",))
    monkeypatch.setattr(score.detector, "find", lambda images, phrases, batch: [unknown] * len(images))
    [[gone]] = scores_of(score, row("remove", picture(), picture(), edited_object="a zebra"))
    assert gone["absent"] is None, "not 0: what it cannot find is not gone"
    [[there]] = scores_of(score, row("local", picture(), picture(seed=1)))
    assert (there["present"], there["present_overlap"]) == (None, None)


def test_a_caption_that_clip_does_not_know_has_no_score(score, monkeypatch):
    monkeypatch.setattr(score.clip, "knows", lambda text: "blue" not in text)
    [[scores]] = scores_of(score, row("local", picture(), picture(seed=1)))
    assert scores["clip_text_input"] is not None
    assert (scores["clip_text_output"], scores["clip_direction"]) == (None, None)


def test_both_pictures_answer_for_what_both_are_published_with(score, tmp_path):
    from safetensors.numpy import save_file

    weight = np.zeros(score.clip.width, np.float32)
    weight[0] = 1
    save_file({"weight": weight, "bias": np.zeros(1, np.float32)}, tmp_path / "probe.safetensors")
    probe = {"model": str(tmp_path / "probe.safetensors")}
    config = score.config.model_copy(
        update={"nsfw": ProbeWeights(**probe), "aesthetic": ProbeWeights(**probe)}
    )
    tasks = Tasks(
        {
            name: tiny_task(name, direction=direction, fields=ADD_FIELDS, metrics=("nsfw", "aesthetic"))
            for name, direction in (("forward", "forward"), ("reverse", "reverse"))
        }
    )
    stage = Score(config, tasks)
    one, other = picture(red=255), picture(red=0, seed=3)
    first, second = stage.clip.encode_images([one, other], 2)[:, 0]
    for name in tasks:
        for pictures in ((one, other), (other, one)):
            [[scores]] = scores_of(stage, row(name, *pictures))
            assert scores["nsfw"] == pytest.approx(max(first, second), abs=1e-5)
            assert scores["aesthetic"] == pytest.approx(min(first, second), abs=1e-5)


def test_quotes_of_a_task_that_writes_nothing_are_not_read(score):
    scores_of(score, row("local", picture(), picture(seed=1), edited_object='a 5" blue car'))


def test_the_way_back_is_measured_in_the_input(clip_folder, detector):
    tasks = Tasks(
        {
            "local": tiny_task(
                metrics=("clip_direction", "inverse_direction", "inverse_present", "inverse_absent"),
                inverse={"index": 0, "instruction": "replace {the_edited_object} with {original_object}"},
            ),
            "sketch": tiny_task(
                "sketch",
                fields=SAME_FIELDS,
                method="sketch",
                candidates=(),
                metrics=("clip_direction", "inverse_direction"),
                inverse={"index": 1, "instruction": "back to {a_picture}", "caption": "a sketch of {shown}"},
            ),
        }
    )
    config = Score.Config(
        batch=4, clip=ClipConfig(model=str(clip_folder)), grounding=GroundingConfig(model="not loaded")
    )
    stage = Score(config, tasks)
    same = {"output_caption": "a red car in a meadow"}
    pictures = picture(red=255), picture(red=51, seed=1)
    [[local], [sketch]] = scores_of(stage, row("local", *pictures), row("sketch", *pictures, **same))
    assert local["inverse_direction"] == pytest.approx(local["clip_direction"], abs=1e-6)
    assert local["inverse_present"] == local["inverse_absent"] == pytest.approx(1.0), "I alone is all red"
    assert detector.asked == ["a red car", "a blue car"]
    assert sketch["clip_direction"] is None
    clip = stage.clip
    before, after = clip.encode_texts(["a sketch of a red car in a meadow", "a red car in a meadow"], 4)
    i, tar = clip.encode_images(list(pictures), 4)
    assert sketch["inverse_direction"] == pytest.approx(direction(tar, i, before, after), abs=1e-5)


@pytest.mark.parametrize(
    ("metric", "keys", "told"),
    [
        ("inverse_present", {"inverse": None}, "needs 'inverse'"),
        ("inverse_absent", {"fields": REMOVE_FIELDS}, "edited_object: in_output"),
        ("inverse_present", {"fields": ADD_FIELDS}, "original_object: in_input"),
        ("inverse_direction", {"fields": SAME_FIELDS}, "inverse.caption"),
    ],
)
def test_a_task_without_the_way_back_that_a_metric_measures_is_refused(metric, keys, told):
    back = {"inverse": {"index": 1, "instruction": "add {original_object}"}}
    with pytest.raises(ValueError, match=told):
        check_metrics(Tasks({"local": tiny_task(metrics=(metric,), **{**back, **keys})}))
