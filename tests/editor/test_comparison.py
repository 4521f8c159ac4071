"""Comparing editors: arms, paired differences, and the command from trainings to differences."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import editor.cli  # noqa: F401 - adds its commands
from editor.comparison import compare as comparing
from editor.comparison.arms import read_arms
from editor.comparison.compare import read_figures
from editor.comparison.paired import Figures, paired
from editor.training.trainer import Trainer
from pipeline.errors import UserError
from pipeline.exports import side_of
from tests.editor.tiny_editor import manifest_for, pair_row, write_pairs
from tests.pipeline.test_cli import editpairs
from tests.stages.tiny_clip import save_tiny_clip
from tests.stages.tiny_shards import write_shards

IDS = [f"edit {k}" for k in range(8)]


def figures(values, ids=IDS, columns=("l1",), tasks=None) -> Figures:
    tasks = tasks or ["add" if k % 2 else "remove" for k in range(len(ids))]
    return Figures(
        ids, [name[-1] for name in ids], tasks, columns, np.array(values, float).reshape(len(ids), -1)
    )


NUMBERS = arrays(np.float64, (2, 8), elements=st.floats(-3, 3))


@given(NUMBERS, NUMBERS)
def test_a_difference_is_the_mean_of_the_edits_differences_over_all_seeds(first, second):
    found = paired([figures(x) for x in first], [figures(x) for x in second])
    each = found["all"]["l1"]
    assert each.difference.mean == pytest.approx((second - first).mean(), abs=1e-9)
    assert each.by_seed == pytest.approx((second - first).mean(1), abs=1e-9)
    assert each.second.mean - each.first.mean == pytest.approx(each.difference.mean, abs=1e-9)
    assert found["add"]["l1"].difference.mean == pytest.approx((second - first)[:, 1::2].mean(), abs=1e-9)


def test_what_all_editors_share_of_an_edit_does_not_widen_the_difference():
    random = np.random.default_rng(0)
    hard = random.normal(0, 5, 8)
    first, second = hard, hard + 0.5 + random.normal(0, 0.01, 8)
    each = paired([figures(first)], [figures(second)])["all"]["l1"]
    assert 0.45 < each.difference.low < each.difference.high < 0.55
    assert each.first.high - each.first.low > 3


def test_only_edits_and_values_that_every_editor_has_are_compared_whatever_their_order():
    first = figures(np.arange(8))
    second = figures([9.0, 7.0, 8.0], ["edit 7", "edit 5", "other"], tasks=["add"] * 3)
    each = paired([first], [second])["all"]["l1"]
    assert (each.difference.count, each.difference.mean) == (2, 2)
    lost = figures([np.nan, *range(1, 8)])
    assert paired([first, lost], [first, first])["all"]["l1"].difference.count == 7
    unmeasured = figures([np.nan] * 8)
    assert paired([first], [unmeasured])["all"] == {}


def test_arms_are_pairs_or_settings_and_a_folder_does_not_depend_on_the_others(tmp_path):
    file = write_manifest(tmp_path)
    write_pairs(tmp_path / "more", 4)
    more = str(tmp_path / "more")
    first, second, third = read_arms(
        file,
        ["training.steps=3"],
        [more, "training.task_embedding=false", "data.inverse=false data.tasks=[add]"],
    )
    assert first.manifest.data.pairs == (more,)
    assert not second.manifest.training.task_embedding
    assert (third.manifest.data.inverse, third.manifest.data.tasks) == (False, ("add",))
    assert {arm.manifest.training.steps for arm in (first, second, third)} == {3}
    (alone, _) = read_arms(file, [], ["training.task_embedding=false", more])
    assert alone.slug == second.slug
    assert len({arm.cache(tmp_path) for arm in (first, second, third)}) == 3
    again = read_arms(file, [], ["training.ema=0.5", "training.ema=0.6"])
    assert len({arm.cache(tmp_path) for arm in again}) == 1


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["training.ema=0.5"], "needs 2 to 26 arms, not 1"),
        (["training.ema=0.5", "training.ema=0.50"], "the arms A .* and B .* are the same"),
        (["training.ema=0.5", "missing/run"], "the arm missing/run is neither pairs nor KEY=VALUE"),
        (["training.ema=0.5", "seed=3"], "the arm seed=3: seed belongs to the whole comparison"),
        (["training.ema=0.5", "training.ema='"], "the arm training.ema=': No closing quotation"),
        (["training.ema=0.5", "training.emma=0.5"], "unknown key 'training.emma'"),
    ],
)
def test_a_wrong_arm_is_named(tmp_path, arms, message):
    with pytest.raises(UserError, match=message):
        read_arms(write_manifest(tmp_path), [], arms)


def write_manifest(folder):
    content = manifest_for(folder, training={"steps": 2}).model_dump(mode="json")
    file = folder / "tiny.yaml"
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a comparison of two settings on further pairs, of which two have captions of the training."""
    file = write_manifest(tmp_path)
    trained = [k for k in range(12) if side_of(f"caption {k}", 0.3) == "train"]
    rows = [pair_row("remove", k) for k in trained[:2]]
    rows += [pair_row("add" if k % 2 else "remove", k) for k in range(100, 106)]
    write_shards(tmp_path / "edits", [rows])
    save_tiny_clip(tmp_path / "clip")
    capsys.readouterr()  # bars of saving
    arguments = ["compare", file, "training.task_embedding=true", "training.task_embedding=false"]
    arguments += ["--on", tmp_path / "edits", "--clip", tmp_path / "clip", "--dino", "none", "--seeds", 2]
    return lambda *more: editpairs(monkeypatch, capsys, *arguments, *more)


def test_the_command_trains_measures_and_tells_the_differences(tmp_path, command, monkeypatch):
    code, told, errors = command()
    assert (code, errors) == (0, "")
    folder = tmp_path / "comparison"
    found = json.loads((folder / "comparison.json").read_text())
    assert found["seeds"] == [0, 1]
    assert found["arms"] == {"A": "training.task_embedding=true", "B": "training.task_embedding=false"}
    assert [[Path(name).is_dir() for name in each] for each in found["editors"].values()] == [[True] * 2] * 2
    line = found["differences"]["B"]["all"]["l1"]
    evaluations = sorted(folder.glob("*/evaluation"))
    assert len(evaluations) == 4
    means = {path.parent.name: read_figures(path) for path in evaluations}
    used = {name for each in means.values() for name in each.ids}
    captions = [json.loads((path / "results.json").read_text())["skipped"] for path in evaluations]
    assert all(sum(each.values()) + len(used) == 8 for each in captions)
    assert captions[0]["caption that an editor was trained on"] == 2
    assert line["edits"] == len(used)
    by_arm = {
        word: np.mean(
            [each.values[:, each.columns.index("l1")].mean() for n, each in means.items() if word in n]
        )
        for word in ("true", "false")
    }
    assert line["difference"]["mean"] == pytest.approx(by_arm["false"] - by_arm["true"], abs=1e-9)
    assert (folder / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert "A: training.task_embedding=true; B: training.task_embedding=false" in told
    assert len(list((folder / "caches").iterdir())) == 1, "arms with the same pairs share their latents"

    def never(*_, **__):
        raise AssertionError("done already")

    monkeypatch.setattr(comparing, "write_results", never)
    monkeypatch.setattr(Trainer, "_one_step", never)
    assert command()[0] == 0
    assert json.loads((folder / "comparison.json").read_text()) == found


def test_pairs_to_judge_by_are_looked_at_before_anything_is_trained(tmp_path, command):
    code, _, errors = command("--on", tmp_path / "nowhere")
    assert code == 2
    assert "there are no pairs at" in errors
    assert not (tmp_path / "comparison").exists()


def test_if_no_edit_is_left_the_reason_is_told(tmp_path, command):
    numbers = [k for k in range(12) if side_of(f"caption {k}", 0.3) == "train"]
    write_shards(tmp_path / "seen", [[pair_row("remove", k) for k in numbers]])
    code, _, errors = command("--on", tmp_path / "seen", "--seeds", 1)
    assert code == 2
    assert f"{len(numbers)} caption that an editor was trained on" in errors
