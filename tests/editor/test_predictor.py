"""Training a task predictor: T5 and encoders, the split, one folder for all users, refusals."""

import shutil

import pytest
import torch

import editor.cli  # noqa: F401 - adds its commands
from editor.predictor import train as training
from editor.predictor.data import read_instructions
from pipeline.errors import UserError
from pipeline.exports import side_of
from stages.base import Weights
from stages.models.classifier import SequenceClassifier
from stages.task_check.stage import TaskCheck, TaskCheckConfig
from stages.tasks import Tasks
from tests.editor.tiny_editor import pair_row
from tests.pipeline.test_cli import editpairs
from tests.stages.tiny_shards import TASKS, write_shards
from tests.stages.tiny_t5 import save_bert, save_t5, save_tokenizer

COLORS = ("red", "blue", "green", "grey")
WORDS = {"remove": "remove the {} ball", "add": "add a {} ball", "background": "put it by a {} wall"}
WAY_BACK = "add old remove new replace the background with"
"""The words of T_inverse."""
VOCABULARY = {*" ".join(WORDS.values()).split(), *COLORS, *WAY_BACK.split()}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    tasks = list(WORDS)
    rows = [
        pair_row(tasks[k % 3], k, instruction=WORDS[tasks[k % 3]].format(COLORS[k % 4])) for k in range(120)
    ]
    write_shards(folder, [rows])
    return folder


@pytest.fixture
def train(tmp_path, pairs, monkeypatch, capsys):
    def run(base, *more):
        capsys.readouterr()
        arguments = ["train-predictor", pairs, "--base", base, "--out", tmp_path / "out", "--epochs", 12]
        arguments += ["--learning-rate", 0.01, "--batch", 16, "--test-share", 0.3]
        return editpairs(monkeypatch, capsys, *arguments, *more)

    return run


@pytest.mark.parametrize("save", [save_t5, save_bert])
def test_the_class_is_chosen_by_the_config_and_the_folder_serves_everyone(tmp_path, train, save):
    code, told, errors = train(save(tmp_path / "base", VOCABULARY))
    assert code == 0, errors
    assert "of 3 tasks to train on" in told
    assert "right: 1.000 of " in told
    out = tmp_path / "out"
    weights = Weights(model=str(out))
    predictor = SequenceClassifier(weights, 64)
    assert predictor.labels == sorted(WORDS, key=lambda name: TASKS[name].index)
    texts = [text.format("red") for text in WORDS.values()]
    together = predictor.predict(texts, 4)
    assert [max(found, key=found.get) for found in together] == list(WORDS)
    assert [predictor.predict([text], 4)[0] for text in texts] == together
    tasks = Tasks({name: TASKS[name] for name in WORDS})
    config = TaskCheckConfig(predictor=weights)
    assert list(TaskCheck.problems(config, tasks)) == []
    assert TaskCheck(config, tasks).predictor is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"], "nothing else is left"


def test_an_end_token_in_an_instruction_costs_this_instruction_alone(tmp_path, train):
    """A T5 refuses a whole batch in which one text has two end tokens."""
    assert train(save_t5(tmp_path / "base", VOCABULARY))[0] == 0
    predictor = SequenceClassifier(Weights(model=str(tmp_path / "out")), 64)
    first, second, third = predictor.predict(["remove the red ball", "remove </s> it", "add a red ball"], 3)
    assert second == {}
    assert max(first, key=first.get) == "remove"
    assert max(third, key=third.get) == "add"


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, train, monkeypatch):
    base = save_t5(tmp_path / "base", VOCABULARY)
    assert train(base)[0] == 0
    (tmp_path / "out").rename(tmp_path / "whole")

    class Killed(BaseException):
        pass

    told = training._Told.on_log

    def die(self, args, state, control, logs=None, **more):
        told(self, args, state, control, logs, **more)
        if state.epoch == 7:
            raise Killed

    monkeypatch.setattr(training._Told, "on_log", die)
    with pytest.raises(Killed):
        train(base)
    monkeypatch.setattr(training._Told, "on_log", told)
    code, _, errors = train(base, "--seed", 1)
    assert code == 2
    assert "holds an unfinished training with other settings" in errors
    code, text, _ = train(base)
    assert code == 0
    assert "epoch 3 " not in text, "it went on from its checkpoint"
    first, second = (
        SequenceClassifier(Weights(model=str(tmp_path / name)), 64).model.state_dict()
        for name in ("whole", "out")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_instructions_are_split_by_caption_and_the_way_back_has_its_own_task(tmp_path):
    rows = [pair_row("remove", k, instruction=f"remove {k}") for k in range(40)]
    rows += [pair_row("add", k, instruction=f"add {k}") for k in range(40, 80)]
    write_shards(tmp_path, [rows])
    train, held_out = read_instructions([str(tmp_path)], 0.3, TASKS)
    for labelled, side in ((train, "train"), (held_out, "test")):
        forwards = [text for text in labelled.texts if text.split()[1].isdigit()]
        assert forwards
        assert all(side_of(f"caption {text.split()[1]}", 0.3) == side for text in forwards)
    found = dict(zip(train.texts, train.labels, strict=True))
    assert {train.names[place] for text, place in found.items() if text.startswith("remove")} == {"remove"}
    assert len(train.texts) + len(held_out.texts) > len(rows), "some of them have a way back"


def test_what_cannot_be_trained_is_one_message(tmp_path, pairs, train):
    base = save_t5(tmp_path / "base", VOCABULARY)
    code, _, errors = train(tmp_path / "nothing")
    assert code == 2
    assert "--base" in errors
    (tmp_path / "out").mkdir()
    assert "the path exists already" in train(base)[2]
    (tmp_path / "out").rmdir()
    endless = shutil.copytree(base, tmp_path / "endless")
    tokenizer = save_tokenizer(endless, VOCABULARY)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(endless)
    shutil.rmtree(tmp_path / "out.training", ignore_errors=True)
    assert "does not end a text with the model's end token" in train(endless)[2]
    write_shards(tmp_path / "one", [[pair_row("background", k) for k in range(3)]])
    with pytest.raises(UserError, match="instructions of 1 tasks"):
        read_instructions([str(tmp_path / "one")], 0.0, TASKS)
    with pytest.raises(UserError, match="no task file has the index"):
        read_instructions([str(pairs)], 0.0, Tasks({"add": TASKS["add"]}))
