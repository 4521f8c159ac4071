"""A missing or damaged tokenizer, or one of another model, is told before a run and never used in silence."""

import json
import os
import shutil
from pathlib import Path

import pytest

from stages.base import Weights
from stages.models.chat.readiness import check_chat
from stages.models.clip import Clip
from stages.models.clip_files import clip_problems
from stages.models.config import ClipConfig
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.model import Diffusion
from stages.models.grounding import GroundingConfig
from stages.models.grounding.folder import grounding_problems
from stages.models.tokenizer_files import check_tokenizer
from stages.models.weight_files import problems_of
from stages.task_check.stage import TaskCheck, TaskCheckConfig
from stages.tasks import load_tasks
from tests.pipeline.runs import ROOT

WEIGHTS = ROOT / "toybox" / "weights"
TASKS = load_tasks(ROOT / "prompts")
PROBLEMS = {
    "clip": lambda model: clip_problems(ClipConfig(model=model)),
    "detector/text_encoder": lambda model: grounding_problems(GroundingConfig(model=model)),
    "language_model": lambda model: problems_of("instruct", Weights(model=model), check_chat),
    "task_predictor": lambda model: TaskCheck.problems(TaskCheckConfig(predictor={"model": model}), TASKS),
    "diffusion/tokenizer": lambda model: diffusion_problems(DiffusionConfig(model=model)),
}
"""By the tokenizer's folder."""


def damaged(file: Path, how: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if how == "a folder":
        file.mkdir()
    elif how == "a link to nowhere":
        file.symlink_to("nowhere")
    elif how != "missing":
        other = WEIGHTS / "diffusion" / "tokenizer" / "tokenizer.json"
        texts = {"empty": b"", "cut": content[:-9], "a list": b"[]", "bytes": bytes(range(256))}
        file.write_bytes(other.read_bytes() if how == "of another model" else texts[how])


DAMAGES = ["missing", "empty", "cut", "a list", "bytes", "a folder", "a link to nowhere"]


@pytest.fixture
def copy(tmp_path):
    """A copy of the toybox's model; its files are links, which ``damaged`` takes away."""

    def copied(place: str) -> Path:
        shutil.copytree(
            WEIGHTS / place.split("/")[0], tmp_path / place.split("/")[0], copy_function=os.symlink
        )
        return tmp_path / place

    return copied


def problems(place: str, folder: Path) -> list[str]:
    return list(PROBLEMS[place](str(folder.parent if "/" in place else folder)))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("place", PROBLEMS)
def test_a_damaged_tokenizer_is_told_before_a_run(copy, place, file, how):
    folder = copy(place)
    assert problems(place, folder) == []
    damaged(folder / file, how)
    [problem] = problems(place, folder)
    assert str(folder) in problem


@pytest.mark.parametrize(
    "place", [place for place in PROBLEMS if place not in ("clip", "diffusion/tokenizer")]
)
def test_a_tokenizer_of_another_model_is_told(copy, place):
    folder = copy(place)
    damaged(folder / "tokenizer.json", "of another model")
    [problem] = problems(place, folder)
    assert "of another model" in problem


def test_a_model_whose_tokenizer_has_no_words_is_not_loaded(copy):
    clip, diffusion = copy("clip"), copy("diffusion/tokenizer")
    for folder in (clip, diffusion):
        (folder / "tokenizer.json").unlink()
    with pytest.raises(OSError, match=r"clip\.model: the tokenizer of .* has no vocabulary"):
        Clip.load(ClipConfig(model=str(clip)))
    with pytest.raises(OSError, match=r"diffusion\.model: the tokenizer of .* has no vocabulary"):
        Diffusion(DiffusionConfig(model=str(diffusion.parent)))


@pytest.mark.parametrize("names", [["vocab.txt"], ["vocab.json", "merges.txt"], ["spiece.model"]])
def test_older_tokenizers_are_taken(tmp_path, names):
    with pytest.raises(ValueError, match="no vocabulary"):
        check_tokenizer(tmp_path)
    for name in names:
        (tmp_path / name).write_text("{}")
    check_tokenizer(tmp_path)


@pytest.mark.parametrize("template", ["", " \n"])
def test_an_empty_chat_template_is_none(copy, template):
    folder = copy("language_model")
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(template)
    [problem] = problems("language_model", folder)
    assert "no chat template" in problem
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "{{ messages }}"}))
    assert problems("language_model", folder) == []
