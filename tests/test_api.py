"""``import editpairs``: a run of the toybox and one edit, as someone has them in a notebook."""

import json
import shutil
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import editpairs
from pipeline.cli import app
from pipeline.manifest.lockfile import read_lock
from stages.score.metrics import MEASURED
from tests.runs_elsewhere import rewrite_lock
from tests.toybox_runs import Run


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(toybox_run) -> editpairs.Run:
    return editpairs.open(toybox_run.folder)


def test_every_public_name_has_its_words():
    for name in editpairs.__all__:
        assert getattr(editpairs, name).__doc__
    assert editpairs.__version__


def test_importing_it_loads_no_model_library_and_no_pandas():
    heavy = ("torch", "ray", "transformers", "diffusers", "pandas", "open_clip")
    code = f"import sys, editpairs; print(set({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_that_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(editpairs.UserError, match="there is no run"):
        editpairs.open(tmp_path / "nowhere")


def test_pairs_are_those_of_the_shards(run, toybox_run):
    shards = toybox_run.shards()
    pairs = run.pairs()
    assert [pair.id for pair in pairs] == shards["id"].tolist()
    assert run.status().pairs == len(pairs)
    pair, row = pairs[0], shards.iloc[0]
    assert (pair.task, pair.instruction, pair.input_caption) == (row.task, row["T"], row.input_caption)
    assert pair.input.mode == pair.target.mode == "RGB"
    assert pair.mask.mode == "L"
    assert pair.input.size == pair.target.size == pair.mask.size == (64, 64)
    assert pair.scores == {metric: row[metric] for metric in MEASURED if not np.isnan(row[metric])}
    with pytest.raises(FrozenInstanceError):
        pair.task = "other"


def test_pairs_of_a_task_and_a_few(run):
    tasks = [pair.task for pair in run.pairs()]
    task = tasks[-1]
    assert [pair.task for pair in run.pairs(task=task)] == [task] * tasks.count(task)
    assert [pair.id for pair in run.pairs(limit=2)] == [pair.id for pair in run.pairs()][:2]
    with pytest.raises(editpairs.UserError, match=r"no task 'colour'; its tasks: .*color"):
        run.pairs(task="colour")


def test_scores_have_a_line_for_every_candidate(run):
    scores = run.scores()
    counts = {stage.name: stage.rows for stage in run.status().stages}
    assert scores["id"].nunique() == counts["score"].kept
    assert (
        scores.groupby("id").candidate.apply(lambda numbers: sorted(numbers) == [*range(len(numbers))]).all()
    )
    assert scores.chosen.sum() == counts["filter"].kept
    assert scores[scores.status == "rejected"].reason.ne("").all()
    assert set(MEASURED) <= set(scores.columns)
    published = {pair.id: pair.scores for pair in run.pairs()}
    chosen = scores[scores.chosen].set_index("id")
    for row_id, expected in published.items():
        assert {m: v for m in MEASURED if not np.isnan(v := chosen.loc[row_id, m])} == pytest.approx(expected)


def test_the_report_is_the_command_s(run, tmp_path):
    where = run.report(tmp_path / "report.html", rows=5, seed=1)
    again = tmp_path / "again.html"
    from typer.testing import CliRunner

    arguments = ["report", str(run.folder), "--out", str(again), "--rows", "5", "--seed", "1"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert where.read_bytes() == again.read_bytes()


BOAT = {
    "input_caption": "a red boat in a room",
    "output_caption": "a blue boat in a room",
    "task": "color",
    "original_object": "a red boat",
    "edited_object": "a blue boat",
    "settings": ["diffusion.steps=10"],
}


def test_one_edit_from_two_captions(elsewhere):
    edit = editpairs.draw_edit(**BOAT, seed=3)
    before, after = (np.asarray(picture).astype(float) for picture in (edit.input, edit.target))
    mask = np.asarray(edit.mask) / 255
    assert before.shape == after.shape == (64, 64, 3)
    assert 0 < mask.mean() < 0.6, "one object, not the picture"
    inside, outside = mask > 0.9, mask == 0
    assert np.abs(after - before)[inside].mean() > 4 * np.abs(after - before)[outside].mean()
    red, _, blue = (after - before)[inside].mean(0)
    assert red < -20
    assert blue > 20
    assert all(isinstance(target, Image.Image) for target in edit.targets)
    again = editpairs.draw_edit(**BOAT, seed=3)
    assert again.target.tobytes() == edit.target.tobytes(), "the same call, the same pictures"
    assert not list(elsewhere.iterdir()), "no run is made"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "colour"}, "unknown task 'colour'"),
        ({"original_object": " "}, "the task color needs original_object"),
        ({"output_caption": ""}, "the task color needs output_caption"),
        ({"task": "remove"}, "the task remove needs surroundings"),
        ({"original_object": "a green house"}, "gave the edit up: .*another seed"),
        ({"original_object": "a red tractor"}, "unknown_word in 'a red tractor'"),
        ({"settings": ["mask.segmenter.model=./nowhere"]}, "there are no weights at ./nowhere"),
        ({"manifest": "toyboks"}, "did you mean toybox"),
    ],
)
def test_an_edit_that_cannot_be_drawn_says_why(changes, message):
    with pytest.raises(editpairs.UserError, match=message):
        editpairs.draw_edit(**{**BOAT, **changes})


def moved(toybox_run: Run, folder: Path) -> Path:
    """The run on another machine: in another folder, without the files that its manifest names."""
    copy = shutil.copytree(toybox_run.folder, folder / "here" / "moved")

    def forget(content: dict) -> None:
        content["manifest"]["tasks"] |= {"prompts": "/gone/prompts", "exemplars": "/gone/exemplars"}
        content["manifest"]["captions"]["file"] = "/gone/captions.jsonl"
        content["manifest"]["runs"] = "/gone/runs"

    rewrite_lock(copy / "manifest.lock.yaml", forget)
    assert read_lock(copy / "manifest.lock.yaml")["manifest"]["runs"] == "/gone/runs"
    return copy


def test_a_run_is_read_anywhere(toybox_run, elsewhere):
    from typer.testing import CliRunner

    copy = moved(toybox_run, elsewhere)
    row = toybox_run.shards().iloc[0]["id"]
    for arguments in (
        ["status"],
        ["report"],
        ["validate"],
        ["regenerate", row],
        ["inspect"],
        ["cost"],
        ["export", "--to", "datasets", "--out", "exported", "--quiet"],
        ["export", "--to", "preference", "--out", "preferred"],
    ):
        done = CliRunner().invoke(app, [arguments[0], str(copy), *arguments[1:]])
        assert done.exit_code == 0, done.output
    assert (copy / "report.html").exists()
    assert (elsewhere / "exported" / "README.md").exists()
    status = CliRunner().invoke(app, ["status", str(copy), "--json"])
    assert json.loads(status.stdout)["pairs"] == len(toybox_run.shards())
