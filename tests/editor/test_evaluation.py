"""Measuring an editor: intervals, each metric against its definition, and the command's files."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import editor.cli  # noqa: F401 - adds its commands
from editor.data.edit_sets import Edit, EditSet
from editor.editing.editor import Editor
from editor.evaluation.evaluate import evaluate
from editor.evaluation.intervals import mean_intervals
from editor.evaluation.metrics import MEANINGS, Measures
from editor.model.loading import new_editor, save_editor
from editor.model.network import Guidance
from pipeline.errors import UserError
from stages.base import Weights
from stages.models.clip import Clip
from stages.models.config import ClipConfig
from tests.editor.edit_set_files import cell, emu_row, instruct_pix2pix_row, write
from tests.editor.tiny_editor import write_pairs
from tests.pipeline.test_cli import editpairs
from tests.pipeline.test_shown import HOSTILE, forbidden
from tests.stages.tiny_clip import save_tiny_clip
from tests.stages.tiny_estimators import save_tiny_dino
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_shards import TASKS
from tests.toybox_runs import ROOT

PREDICTOR = ROOT / "toybox" / "weights" / "task_predictor"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of a tiny editor with a task predictor, CLIP and DINO."""
    root = tmp_path_factory.mktemp("evaluation")
    torch.manual_seed(0)
    source = save_stable_diffusion(root / "model")
    network = new_editor(Weights(model=str(source)), "model", TASKS, zero_terminal_snr=False)
    save_editor(network, root / "editor", Guidance(2.0, 1.2, 1))
    shutil.copytree(PREDICTOR, root / "editor" / "task_predictor")
    save_tiny_clip(root / "clip")
    save_tiny_dino(root / "dino")
    return root


@pytest.fixture(scope="module")
def opened(made) -> Editor:
    return Editor.from_pretrained(made / "editor")


@pytest.fixture(scope="module")
def measures(made) -> Measures:
    return Measures([str(made / "clip")], [str(made / "dino")])


def random_picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


def edit(**changes) -> Edit:
    captions = {"before_caption": "a red car", "after_caption": "a blue car"}
    given = {"id": "1", "group": "g", "instruction": "paint the car blue", "before": random_picture(0)}
    return Edit(**({**given, "after": random_picture(1), **captions} | changes))


NUMBERS = arrays(np.float64, (7, 2), elements=st.floats(-5, 5))


@given(NUMBERS, st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_an_interval_holds_the_mean_and_lies_between_the_groups_means(values, groups):
    for k, found in enumerate(mean_intervals(values, groups, draws=200)):
        means = [values[[g == name for g in groups], k].mean() for name in set(groups)]
        assert found.mean == pytest.approx(values[:, k].mean(), abs=1e-9)
        assert min(means) - 1e-9 <= found.low <= found.high <= max(means) + 1e-9


def test_edits_of_one_picture_do_not_narrow_an_interval():
    values = np.random.default_rng(0).normal(size=(30, 1))
    (once,) = mean_intervals(values, range(30))
    (ten_times,) = mean_intervals(np.repeat(values, 10, 0), np.repeat(range(30), 10))
    (wrong,) = mean_intervals(np.repeat(values, 10, 0), range(300))
    assert ten_times.high - ten_times.low == pytest.approx(once.high - once.low, rel=1e-6)
    assert wrong.high - wrong.low < 0.5 * (once.high - once.low)
    expected = 2 * 1.96 * values.std() / np.sqrt(30)
    assert once.high - once.low == pytest.approx(expected, rel=0.15)


def test_missing_values_do_not_count():
    first, second = mean_intervals(np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]]), "abc")
    assert (first.mean, first.count) == (2, 2)
    assert (second.count, second.text()) == (0, "-")


def values_of(measures: Measures, given: Edit, picture: np.ndarray) -> dict[str, float]:
    (values,) = measures([given], [picture])
    return {column.metric: value for column, value in zip(measures.columns, values, strict=True)}


def test_each_metric_is_what_its_definition_says(made, measures):
    given, picture = edit(), random_picture(2)
    found = values_of(measures, given, picture)
    assert list(found) == list(MEANINGS)
    assert found["l1"] == pytest.approx(np.abs(picture / 255 - given.before / 255).mean(), abs=1e-6)
    assert found["l1_target"] == pytest.approx(np.abs(picture / 255 - given.after / 255).mean(), abs=1e-6)
    clip = Clip.load(ClipConfig(model=str(made / "clip")))
    before, edited, after = clip.encode_images([given.before, picture, given.after], 3)
    first, last = clip.encode_texts([given.before_caption, given.after_caption], 2)

    def cosine(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert found["clip_image"] == pytest.approx(cosine(before, edited), abs=1e-5)
    assert found["clip_target"] == pytest.approx(cosine(after, edited), abs=1e-5)
    assert found["clip_output"] == pytest.approx(cosine(last, edited), abs=1e-5)
    assert found["clip_direction"] == pytest.approx(cosine(edited - before, last - first), abs=1e-4)
    one, two = measures.dinos[str(made / "dino")].encode([given.before, picture], 2)
    assert found["dino"] == pytest.approx(cosine(one, two), abs=1e-5)


def test_an_untouched_and_a_perfect_picture_have_the_extreme_values(measures):
    given = edit()
    untouched, perfect = (values_of(measures, given, p) for p in (given.before, given.after))
    assert untouched["l1"] == untouched["clip_direction"] == perfect["l1_target"] == 0
    for found, names in ((untouched, ("clip_image", "dino")), (perfect, ("clip_target", "dino_target"))):
        for name in names:
            assert found[name] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"after": None}, {"l1_target", "clip_target", "dino_target"}),
        ({"after_caption": ""}, {"clip_direction", "clip_output"}),
        ({"before_caption": "a blue car"}, {"clip_direction"}),
    ],
)
def test_a_metric_that_does_not_apply_is_missing(measures, changes, missing):
    found = values_of(measures, edit(**changes), random_picture(2))
    assert {name for name, value in found.items() if np.isnan(value)} == missing


def test_a_caption_with_words_that_clip_does_not_know_has_no_figures(made, measures, monkeypatch):
    monkeypatch.setattr(measures.clips[str(made / "clip")], "knows", lambda text: "blue" not in text)
    found = values_of(measures, edit(), random_picture(2))
    assert {name for name, value in found.items() if np.isnan(value)} == {"clip_direction", "clip_output"}


def test_the_pixels_that_a_model_sees_are_named(made, measures):
    assert measures.models == {str(made / "clip"): 64, str(made / "dino"): 28}


def test_each_edit_has_a_noise_of_its_own_whatever_its_batch(made, opened, tmp_path):
    write_pairs(tmp_path, 6)
    one, all_at_once = (
        evaluate(opened, EditSet(str(tmp_path)), Measures([], []), batch=batch) for batch in (1, 6)
    )
    assert one.ids == all_at_once.ids
    assert np.allclose(np.stack(one.values), np.stack(all_at_once.values), atol=1e-3, equal_nan=True)


def test_tasks_are_those_of_the_data_or_predicted(opened, tmp_path):
    rows = [emu_row(1, instruction="remove the red ball"), emu_row(2, instruction="add a red ball")]
    rows += [
        emu_row(3, task="style", instruction="remove the red ball"),
        emu_row(4, task="text", instruction="嗨"),
    ]
    write(tmp_path / "test-0.parquet", [row | {"task": row["task"]} for row in rows])
    own = evaluate(opened, EditSet(str(tmp_path)), Measures([], []))
    assert own.chosen == ["remove", "remove", "remove"]
    assert own.tasks == ["remove", "remove", "style"]
    assert own.skipped["task that is neither known nor predicted"] == 1
    predicted = evaluate(opened, EditSet(str(tmp_path)), Measures([], []), predict=True)
    assert predicted.chosen == ["remove", "add", "remove"]
    assert predicted.tasks == own.tasks


def test_pictures_that_do_not_fit_cost_their_rows_and_sizes_may_differ(opened, tmp_path):
    rows = [
        instruct_pix2pix_row(k, original_image=cell(k, side), edited_image=cell(k, side))
        for k, side in enumerate([16, 17, 24, 16])
    ]
    write(tmp_path / "a.parquet", [row | {"edit_prompt": "remove the red car"} for row in rows])
    found = evaluate(opened, EditSet(str(tmp_path)), Measures([], []))
    assert found.ids == ["1", "3", "4"]
    assert dict(found.skipped) == {"sides that are no multiples of 2 pixels (--side N resizes)": 1}
    with pytest.raises(UserError, match=r"no edit can be used \(4 sides"):
        evaluate(opened, EditSet(str(tmp_path), side=17), Measures([], []))


def test_the_command_writes_figures_a_sheet_and_a_page(made, tmp_path, monkeypatch, capsys):
    hostile = HOSTILE.encode(errors="ignore").decode()  # parquet holds no halves of surrogates
    texts = {"instruction": "</p><script>", "input_caption": hostile, "output_caption": f"</p>{hostile}"}
    rows = [emu_row(k, **texts) for k in range(3)]
    write(tmp_path / "set" / "validation-0.parquet", rows)
    out, models = tmp_path / "out", ["--clip", made / "clip", "--dino", made / "dino"]
    code, told, errors = editpairs(
        monkeypatch, capsys, "evaluate", made / "editor", tmp_path / "set", "--out", out, *models, "--rows", 2
    )
    assert (code, errors) == (0, "")
    assert "rows of split test in files named validation" in told
    assert not forbidden(told)
    results = json.loads((out / "results.json").read_text())
    assert results["figures"]["remove"]["edits"] == 2
    assert set(results["figures"]["all"]["l1"]) == {"mean", "low", "high"}
    assert results["models and the pixels they see"] == {str(made / "clip"): 64, str(made / "dino"): 28}
    table = pq.read_table(out / "edits.parquet")
    assert table["id"].to_pylist() == ["0", "1"]
    assert results["figures"]["all"]["l1"]["mean"] == pytest.approx(np.mean(table["l1"].to_pylist()))
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 4
    assert "<script" not in page
    assert not forbidden(re.sub(r'src="data:[^"]*"', "", page))
    assert (out / "sheet.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{made}/editor", "{made}/none"], "there are no pairs at"),
        (["{made}/model", "{set}", "--clip", "none", "--dino", "none"], "not an editor of editpairs"),
        (["{made}/editor", "{set}", "--clip", "ViT-B-32"], "write ViT-B-32@TAG"),
        (["{made}/editor", "{set}", "--clip", "{made}/nothing"], "--clip: "),
        (["{made}/editor", "{set}", "--split", "train"], "--split train: the splits are test, validation"),
    ],
)
def test_a_wrong_command_is_one_message(made, tmp_path, monkeypatch, capsys, arguments, message):
    write(tmp_path / "set" / "test-0.parquet", [emu_row(1)])
    filled = [each.format(made=made, set=tmp_path / "set") for each in arguments]
    code, _, errors = editpairs(monkeypatch, capsys, "evaluate", *filled, "--out", tmp_path / "out")
    assert code == 2
    assert errors.startswith("error: ")
    assert message.lower() in errors.lower()
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
