"""Editing in turns: what each turn begins with, thresholding, sizes, the choice of tasks, refusals."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import editor.cli  # noqa: F401 - adds its commands
from editor.data.pictures import decode_picture
from editor.editing.choice import Choice, TaskChooser
from editor.editing.editor import Editor
from editor.model.loading import new_editor, save_editor
from editor.model.network import Guidance
from editor.model.task_table import TaskTable
from pipeline.errors import StageError, UserError
from stages.base import Weights
from stages.pictures.pixel_threshold import keep_unchanged
from tests.pipeline.test_cli import editpairs
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion
from tests.stages.tiny_shards import TASKS
from tests.toybox_runs import ROOT

PREDICTOR = ROOT / "toybox" / "weights" / "task_predictor"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny editor of each family, and the text-to-image model of the first."""
    root = tmp_path_factory.mktemp("editing")
    sources = {"sd": save_stable_diffusion(root / "model"), "sdxl": save_sdxl(root / "sdxl-model")}
    for name, source in sources.items():
        torch.manual_seed(0)
        network = new_editor(Weights(model=str(source)), "model", TASKS, zero_terminal_snr=False)
        # A new editor sees neither the input picture nor, at once, the task.
        torch.nn.init.normal_(network.unet.conv_in.weight, std=0.2)
        torch.nn.init.normal_(network.unet.task_projection.weight)
        torch.nn.init.normal_(network.table.vectors.weight)
        save_editor(network, root / name, Guidance(2.0, 1.2, 2))
    return {"model": sources["sd"], "sd": root / "sd", "sdxl": root / "sdxl"}


@pytest.fixture(scope="module")
def opened(folders) -> Editor:
    return Editor.from_pretrained(folders["sd"])


def drawn(height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def saved(path, pixels=None, **options):
    Image.fromarray(drawn() if pixels is None else pixels).save(path, **options)
    return path


def test_every_turn_edits_the_thresholded_picture_of_the_turn_before(opened, monkeypatch):
    given, results = [], []
    encode, edit = opened.network.encode, opened.network.edit
    monkeypatch.setattr(opened.network, "encode", lambda x: given.append(x[0]) or encode(x))
    monkeypatch.setattr(opened.network, "edit", lambda *a: results.append(edit(*a)) or results[-1])
    session = opened(drawn(), "remove it", "add it", "detect it", task="add", alpha=0.9, kernel=3)
    assert [turn.instruction for turn in session.turns] == ["remove it", "add it", "detect it"]
    before = drawn()
    for turn, begun, result in zip(session.turns, given, results, strict=True):
        assert np.array_equal(begun, before)
        expected = keep_unchanged(before / 255, result[0] / 255, 0.9, 3)
        assert np.array_equal(turn.pixels, np.round(expected * 255).astype(np.uint8))
        assert turn.kept == (turn.pixels == before).all(-1).mean()
        before = turn.pixels
    assert any(0 < turn.kept < 1 for turn in session.turns), "some pixels are kept and some are not"
    assert np.array_equal(np.asarray(session.picture), before)


def test_a_threshold_of_zero_keeps_nothing_and_the_largest_keeps_all(opened):
    raw = opened(drawn(), "remove it", task="remove", alpha=0).turns[0]
    latents = opened.network.encode(drawn()[None])
    vectors = opened.network.vectors([opened.network.table.row("remove")])
    seed = opened.turn_seed(0, 0)
    assert np.array_equal(
        raw.pixels, opened.network.edit(latents, ["remove it"], vectors, opened.guidance, [seed])[0]
    )
    kept = opened(drawn(), "remove it", task="remove", alpha=3.1).turns[0]
    assert np.array_equal(kept.pixels, drawn())
    assert kept.kept == 1


def test_the_same_seed_gives_the_same_pictures_and_another_one_others(opened):
    first, again, other = (
        opened(drawn(), "remove it", task="remove", alpha=0, seed=seed).turns[0].pixels for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_task_changes_the_picture(opened):
    first, other = (
        opened(drawn(), "change it", task=task, alpha=0).turns[0].pixels for task in ("remove", "detect")
    )
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("size", [(16, 16), (18, 22), (6, 30)])
def test_a_picture_keeps_its_size(folders, family, size):
    session = Editor.from_pretrained(folders[family])(drawn(*size), "remove it", "add it", task="add")
    assert [turn.pixels.shape for turn in session.turns] == [(*size, 3)] * 2


def test_a_size_between_two_latents_is_refused_with_the_nearest_sizes(opened):
    with pytest.raises(UserError, match=r"17 x 16 pixels.*multiples of 2.*for example to 16 x 16 or 18 x 18"):
        opened(drawn(16, 17), "remove it", task="remove")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"instructions": []}, "there is no instruction"),
        ({"instructions": ["remove it", "  "]}, "an instruction is empty"),
        ({"instructions": ["red car " * 200]}, "is longer than the 32 tokens"),
        (
            {"task": "recolour"},
            r"--task: there is no task 'recolour'; tasks of this editor: remove \(1\)",
        ),
        ({"task": None}, r"no task predictor: name the task \(--task\); tasks of this editor: remove \(1\)"),
        ({"kernel": 4}, "kernel odd, not 0.03 and 4"),
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"picture": drawn().astype(np.float32)}, "must be uint8"),
        ({"picture": drawn()[..., 0]}, "must be uint8"),
    ],
)
def test_what_cannot_be_edited_is_one_message_before_any_edit(opened, monkeypatch, given, message):
    monkeypatch.setattr(opened.network, "edit", None)
    options = {"task": "remove", **given}
    instructions = options.pop("instructions", ["remove it"])
    with pytest.raises(UserError, match=message):
        opened(options.pop("picture", drawn()), *instructions, **options)


def test_a_picture_that_is_not_finite_is_no_black_picture(folders):
    broken = Editor.from_pretrained(folders["sd"])
    with torch.no_grad():
        broken.network.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(StageError, match="not finite"):
        broken(drawn(), "remove it", task="remove")


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "is no picture of PNG, JPEG"),
        (b"", "is no picture of PNG, JPEG"),
        (encoded(Image.fromarray(drawn()))[:60], "cannot be decoded"),
        (encoded(Image.fromarray(drawn()), "JPEG")[:300], "cannot be decoded"),
        (encoded(Image.fromarray(drawn()), "GIF"), "is no picture of PNG, JPEG"),
        (encoded(Image.fromarray(np.full((4, 4), 999, np.uint16))), "more than 8 bits"),
        (encoded(Image.new("RGBA", (4, 4), (1, 2, 3, 200))), "transparent pixels"),
        (encoded(Image.new("1", (5000, 5000))), "more than 16777216"),
        (encoded(Image.new("1", (20_000, 20_000))), "cannot be decoded: .*decompression bomb"),
    ],
    ids=["text", "empty", "cut", "cut-jpeg", "gif", "16-bit", "transparent", "large", "bomb"],
)
def test_a_picture_that_cannot_be_read_as_it_is_says_why(content, message):
    with pytest.raises(ValueError, match=message):
        decode_picture(content)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("BMP", "RGB"), ("WEBP", "RGB")]
)
def test_other_kinds_of_pictures_are_read_as_rgb(kind, mode):
    image = Image.new("RGB", (4, 6), (10, 20, 30)).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode_picture(encoded(image, kind, **options)), expected)


def test_a_photograph_is_turned_as_its_camera_was_held():
    image = Image.fromarray(drawn(4, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encoded(image, "JPEG", exif=exif)).shape == (8, 4, 3)


@pytest.fixture(scope="module")
def chooser() -> TaskChooser:
    return TaskChooser(TaskTable(["remove", "add", "color"], [1, 2, 10], 4), Weights(model=str(PREDICTOR)))


def test_the_predictor_chooses_the_task(chooser):
    for instruction, task in (("remove the red ball", "remove"), ("paint the ball blue", "color")):
        choice = chooser(instruction)
        assert choice.task == task
        assert choice.sure
        assert choice.told() == f"{task} (predicted, {choice.probability:.2f})"


def test_a_task_that_was_told_needs_no_prediction(chooser, monkeypatch):
    monkeypatch.setattr(chooser, "_predictor", None)
    assert chooser("remove the red ball", "color") == Choice("color")
    assert Choice("color").told() == "color"


def test_an_unsure_prediction_is_said_with_the_next_task(chooser, monkeypatch):
    shares = {"remove": 0.3, "add": 0.6, "color": 0.1}
    monkeypatch.setattr(chooser, "_predictor", SimpleNamespace(predict=lambda *_: [shares]))
    choice = chooser("change it")
    assert (choice.task, choice.sure) == ("add", False)
    assert choice.told() == "add (predicted, 0.60, unsure: it could be remove; --task chooses another)"


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("remove the 汽车", r"does not know all words of .*--task\); tasks of this editor: remove"),
        ("make it night", r"the task predictor says global: there is no task 'global'; tasks of this editor"),
    ],
)
def test_a_prediction_that_helps_nobody_names_the_tasks(chooser, instruction, message):
    with pytest.raises(UserError, match=message):
        chooser(instruction)


def test_an_editor_brings_its_own_predictor(folders, tmp_path):
    import shutil

    shutil.copytree(folders["sd"], tmp_path / "editor")
    shutil.copytree(PREDICTOR, tmp_path / "editor" / "task_predictor")
    session = Editor.from_pretrained(tmp_path / "editor")(drawn(), "remove the red ball")
    assert session.turns[0].choice.task == "remove"


def test_the_command_keeps_every_turn_and_a_sheet(folders, opened, tmp_path, monkeypatch, capsys):
    file, out = saved(tmp_path / "in.png"), tmp_path / "out"
    words = ["remove it", "[bold]add\x1b[2J it"]
    command = ["edit", folders["sd"], file, *words, "--task", "add", "--seed", 5, "--out", out]
    code, told, errors = editpairs(monkeypatch, capsys, *command, "--text-guidance", 3, "--steps", 1)
    assert (code, errors) == (0, "")
    assert "turn 1: remove it: add; " in told
    assert "turn 2: [bold]add\\x1b[2J it: add; " in told
    assert sorted(path.name for path in out.iterdir()) == ["sheet.png", "turn-1.png", "turn-2.png"]
    session = opened.with_guidance(3.0, None, 1)(drawn(), *words, task="add", seed=5)
    for number, turn in enumerate(session.turns, start=1):
        assert np.array_equal(np.asarray(Image.open(out / f"turn-{number}.png")), turn.pixels)
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 3 * 160
        assert np.asarray(sheet).std() > 10


@pytest.mark.parametrize(
    ("model", "picture", "message"),
    [
        ("model", "in.png", "not an editor of editpairs: train an editor from it"),
        ("sd", "none.png", "there is no picture"),
        ("sd", "text.png", "is no picture of PNG"),
        ("nowhere", "in.png", "nowhere"),
    ],
)
def test_a_wrong_command_is_one_message_and_leaves_nothing(
    folders, tmp_path, monkeypatch, capsys, model, picture, message
):
    saved(tmp_path / "in.png")
    (tmp_path / "text.png").write_text("no picture")
    model = folders.get(model, tmp_path / model)
    out = tmp_path / "out"
    command = ["edit", model, tmp_path / picture, "remove it", "--task", "remove", "--out", out]
    code, told, errors = editpairs(monkeypatch, capsys, *command)
    assert (code, told) == (2, "")
    assert errors.startswith("error: ")
    assert message in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "text.png"]


def test_an_earlier_result_is_not_overwritten(folders, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "turn-1.png").write_text("mine")
    command = ["edit", folders["sd"], saved(tmp_path / "in.png"), "remove it", "--out", tmp_path / "out"]
    code, _, errors = editpairs(monkeypatch, capsys, *command)
    assert code == 2
    assert "the path exists already" in errors
    assert (tmp_path / "out" / "turn-1.png").read_text() == "mine"
