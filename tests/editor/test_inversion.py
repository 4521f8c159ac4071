"""Task inversion: one vector is learned and nothing else, its index, its examples, refusals."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import editor.cli  # noqa: F401 - adds its commands
from editor.config import Dropout
from editor.data.latents import Batch
from editor.inversion import learn
from editor.inversion.learn import Settings, learn_vector
from editor.inversion.pairs import ExamplePair, read_example_pairs
from editor.inversion.save import free_index, replace_table
from editor.model.loading import load_editor, new_editor, save_editor
from editor.model.network import EditorNetwork, Guidance
from editor.model.task_table import TaskTable
from editor.training.objective import Objective, draw
from pipeline.errors import StageError, UserError
from stages.base import Weights
from tests.editor.edit_set_files import emu_row, instruct_pix2pix_row, write
from tests.pipeline.test_cli import editpairs
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_shards import TASKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny editor that sees its task."""
    root = tmp_path_factory.mktemp("inversion")
    torch.manual_seed(0)
    source = save_stable_diffusion(root / "model")
    network = new_editor(Weights(model=str(source)), "model", TASKS, zero_terminal_snr=False)
    torch.nn.init.normal_(network.unet.task_projection.weight, std=0.3)
    torch.nn.init.normal_(network.table.vectors.weight)
    save_editor(network, root / "editor", Guidance(2.0, 1.2, 1))
    return root / "editor"


@pytest.fixture
def network(folder) -> EditorNetwork:
    return load_editor(Weights(model=str(folder)))


def picture(seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def examples(count: int) -> list[ExamplePair]:
    return [ExamplePair(f"pair {k}", picture(k), picture(100 + k), "paint it") for k in range(count)]


def write_examples(folder: Path, count: int = 2, texts: int = 0) -> Path:
    for name, first in (("before", 0), ("after", 100)):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(picture(first + k)).save(folder / name / f"{k}.png")
    (folder / "instructions").mkdir()
    for k in range(texts):
        (folder / "instructions" / f"{k}.txt").write_text(f"paint number {k}\n")
    return folder


def mean_loss(network: EditorNetwork, pairs: list[ExamplePair], vector: torch.Tensor) -> float:
    latents = [network.encode(np.stack([pair.before, pair.after])) for pair in pairs]
    batch = Batch(
        torch.stack([x[0] for x in latents]),
        torch.stack([x[1] for x in latents]),
        [pair.instruction for pair in pairs],
        [0] * len(pairs),
    )
    losses = []
    for step in range(25):
        part = slice(0, len(pairs))
        draws = draw(7, step, len(pairs), part, latents[0].shape[1:], 1000, 1.0, Dropout())
        with torch.no_grad():
            losses.append(float(Objective(network)(batch, draws, vector.expand(len(pairs), -1)).mean()))
    return float(np.mean(losses))


def test_learning_changes_the_vector_alone_and_lowers_the_loss(network, monkeypatch):
    parts = {"unet": network.unet, "vae": network.vae, "table": network.table}
    parts["text"] = network.pipeline.text_encoder
    before = {(name, key): x.clone() for name, part in parts.items() for key, x in part.state_dict().items()}
    told = []
    monkeypatch.setattr(learn, "LOGGED", 10)
    pairs, settings = examples(2), Settings(steps=20, batch=2, learning_rate=0.4, norm_penalty=0)
    table = network.table.vectors.weight
    starts = [table.mean(0), *table]
    vector = learn_vector(network, pairs, settings, told.append)
    for name, part in parts.items():
        assert all(torch.equal(before[name, key], x) for key, x in part.state_dict().items()), name
        assert all(parameter.grad is None for parameter in part.parameters()), name
    best = min(mean_loss(network, pairs, start) for start in starts)
    assert mean_loss(network, pairs, vector) < best
    assert [line.step for line in told] == [0, 10, 20]
    assert told[-1].loss < told[0].loss
    assert torch.equal(vector, learn_vector(network, pairs, settings)), "the same seed gives the same vector"


def test_the_penalty_bounds_the_norm(network):
    pairs = examples(1)
    usual = network.table.vectors.weight.norm(dim=1).mean()
    free, bound = (
        learn_vector(network, pairs, Settings(steps=60, learning_rate=0.3, norm_penalty=weight)).norm()
        / usual
        for weight in (0.0, 100.0)
    )
    assert free > 2
    assert bound < 0.6 * free


def test_a_loss_that_is_not_finite_stops(network):
    with torch.no_grad():
        network.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="step 1: the loss is not finite"):
        learn_vector(network, examples(1), Settings(steps=2))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def test_the_command_adds_a_row_and_leaves_everything_else_as_it_was(folder, tmp_path, monkeypatch, capsys):
    model = tmp_path / "editor"
    shutil.copytree(folder, model)
    before, table = digests(model), load_editor(Weights(model=str(model))).table
    command = ["invert", model, "watercolour", write_examples(tmp_path / "examples", texts=2), "--steps", 2]
    monkeypatch.setattr(learn, "LOGGED", 1)
    code, told, errors = editpairs(monkeypatch, capsys, *command)
    assert (code, errors) == (0, "")
    assert "watercolour (16): 2 example pairs" in told
    assert "2/2  loss" in told
    after = digests(model)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert changed == {"tasks/config.json", "tasks/diffusion_pytorch_model.safetensors"}
    again = load_editor(Weights(model=str(model))).table
    assert again.names == [*table.names, "watercolour"]
    assert again.indices == [*table.indices, 16], "above the indices of all task files"
    assert torch.equal(again.vectors.weight[:-1], table.vectors.weight)
    Image.fromarray(picture(5)).save(tmp_path / "in.png")
    edit = [
        "edit",
        model,
        tmp_path / "in.png",
        "paint it",
        "--task",
        "watercolour",
        "--out",
        tmp_path / "out",
    ]
    assert editpairs(monkeypatch, capsys, *edit)[0] == 0
    code, _, errors = editpairs(monkeypatch, capsys, *command)
    assert code == 2
    assert "there is a task 'watercolour' already; tasks of this editor: " in errors


def test_a_task_file_that_the_editor_lacks_brings_its_index():
    table = TaskTable(["remove", "add"], [1, 2], 4)
    files = {"remove": 1, "add": 2, "sketch": 12}
    assert free_index(table, "sketch", files, None) == 12
    assert free_index(table, "new", files, None) == 13
    assert free_index(table, "new", files, 40) == 40
    for wanted in (2, 12):
        with pytest.raises(UserError, match=rf"--index {wanted}: another task has this index"):
            free_index(table, "new", files, wanted)
    with pytest.raises(UserError, match="no index is left"):
        free_index(TaskTable(["a"], [2**15 - 1], 4), "new", {}, None)


def test_a_failed_write_leaves_the_old_table(folder, tmp_path, monkeypatch):
    model = tmp_path / "editor"
    shutil.copytree(folder, model)
    before = digests(model)
    table = load_editor(Weights(model=str(model))).table.with_task("new", 40, torch.ones(16))

    def fail(path):
        Path(path).mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(table, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        replace_table(model, table)
    assert digests(model) == before
    assert {path.name for path in model.iterdir()} == {path.name for path in folder.iterdir()}


def test_examples_of_a_folder_have_their_own_instruction_or_the_common_one(tmp_path):
    write_examples(tmp_path, 2, texts=1)
    first, second = read_example_pairs(str(tmp_path), "paint them all", 2)
    assert (first.instruction, second.instruction) == ("paint number 0", "paint them all")
    assert np.array_equal(second.before, picture(1))
    assert np.array_equal(second.after, picture(101))
    with pytest.raises(UserError, match=r"1 has no instruction: write .*1\.txt, or one for all"):
        read_example_pairs(str(tmp_path), None, 2)


def test_examples_of_any_data_set_with_results_are_read_and_the_rest_left_out(tmp_path):
    write(tmp_path / "many" / "a.parquet", [instruct_pix2pix_row(k) for k in range(120)])
    pairs = read_example_pairs(str(tmp_path / "many"), None, 2)
    assert len(pairs) == 100
    assert pairs[0].instruction == "make it blue"
    write(tmp_path / "none" / "test.parquet", [emu_row(1)])
    with pytest.raises(UserError, match="holds no pairs with a result"):
        read_example_pairs(str(tmp_path / "none"), None, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "after" / "1.png").unlink(), "after has no picture 1"),
        (lambda folder: (folder / "after" / "1.png").write_text("x"), r"1\.png is no picture"),
        (lambda folder: Image.fromarray(picture(1, 18)).save(folder / "after" / "1.png"), "differ in size"),
        (lambda folder: (folder / "instructions" / "1.txt").write_bytes(b"\xff"), "cannot be read"),
        (
            lambda folder: [
                Image.fromarray(picture(1, 18)).save(folder / side / "1.png") for side in ("before", "after")
            ],
            "all pairs must have one size",
        ),
        (lambda folder: shutil.rmtree(folder / "before"), "holds no pairs yet"),
        (lambda folder: shutil.rmtree(folder), "there are no examples at"),
    ],
)
def test_examples_that_cannot_be_used_are_named(tmp_path, spoil, message):
    spoil(write_examples(tmp_path / "examples", texts=2))
    with pytest.raises(UserError, match=message):
        read_example_pairs(str(tmp_path / "examples"), None, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "../evil", "{examples}"], "is no name of a task"),
        (["{model}", "remove", "{examples}"], "there is a task 'remove' already"),
        (["{model}", "new", "{examples}", "--index", "2"], "--index 2: another task has this index"),
        (["{text}", "new", "{examples}"], "not an editor of editpairs"),
        (["some/hub-name", "new", "{examples}"], "is written into the editor's folder"),
        (["{model}", "new", "{examples}", "--prompts", "{examples}"], "--prompts: no task files"),
    ],
)
def test_a_wrong_command_is_one_message_and_changes_nothing(
    folder, tmp_path, monkeypatch, capsys, arguments, message
):
    write_examples(tmp_path / "examples", 1, texts=1)
    before = digests(folder)
    text = folder.with_name("model")
    filled = [each.format(model=folder, text=text, examples=tmp_path / "examples") for each in arguments]
    code, _, errors = editpairs(monkeypatch, capsys, "invert", *filled, "--steps", 1)
    assert code == 2
    assert errors.startswith("error: ")
    assert message in errors
    assert digests(folder) == before
