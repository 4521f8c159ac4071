"""The nine task files, and the toybox's exemplars for them."""

from pathlib import Path

import pytest
import yaml

from stages.instruct.answer import check_answer, parse_answer, words_of
from stages.instruct.prompt import answer_text, verb_of
from stages.tasks import TaskError, load_tasks
from toybox.world import vocabulary

ROOT = Path(__file__).parents[2]
PROMPTS, TOYBOX_EXEMPLARS = ROOT / "prompts", ROOT / "toybox" / "exemplars"
INDICES = {
    "local": 0,
    "remove": 1,
    "add": 2,
    "texture": 3,
    "background": 4,
    "global": 5,
    "detect": 8,
    "segment": 9,
    "color": 10,
}
METRICS = {
    "clip_text_input",
    "clip_text_output",
    "clip_direction",
    "clip_image",
    "change_inside",
    "change_outside",
    "change_outside_raw",
    "ssim_outside",
    "present",
    "absent",
}
SOURCES = pytest.mark.parametrize("exemplars", [None, TOYBOX_EXEMPLARS], ids=["real", "toybox"])
NAMES = pytest.mark.parametrize("name", INDICES)


def test_the_nine_tasks_keep_their_published_indices():
    tasks = load_tasks(PROMPTS)
    assert {name: tasks[name].index for name in INDICES} == INDICES


@NAMES
def test_a_task_has_at_least_twelve_real_exemplars_and_four_of_the_toybox(name):
    real = load_tasks(PROMPTS)[name].exemplars
    assert len(real) >= 12
    assert len({exemplar.caption for exemplar in real}) == len(real)
    assert len(load_tasks(PROMPTS, TOYBOX_EXEMPLARS)[name].exemplars) == 4


@NAMES
def test_the_real_exemplars_use_every_verb(name):
    task = load_tasks(PROMPTS)[name]
    assert {verb_of(task, exemplar.edit) for exemplar in task.exemplars} == set(task.verbs)


@SOURCES
@NAMES
def test_exemplars_are_answers_their_own_task_accepts(name, exemplars):
    task = load_tasks(PROMPTS, exemplars)[name]
    for exemplar in task.exemplars:
        assert verb_of(task, exemplar.edit) in task.verbs
        check_answer(parse_answer(answer_text(exemplar)), exemplar.caption, task.fields)


@NAMES
def test_toybox_exemplars_speak_of_the_drawn_world_only(name):
    known = set(vocabulary())
    for exemplar in load_tasks(PROMPTS, TOYBOX_EXEMPLARS)[name].exemplars:
        assert set(words_of(exemplar.caption)) <= known
        assert set(words_of(exemplar.output_caption)) <= known


@NAMES
def test_bounds_catch_a_target_in_which_nothing_changed(name):
    task = load_tasks(PROMPTS)[name]
    assert set(task.metrics) <= METRICS
    assert task.thresholds["change_inside"].min > 0
    if task.method == "prompt2prompt":
        assert task.thresholds["clip_image"].max < 1


def test_an_unknown_task_is_named_with_those_that_exist():
    with pytest.raises(TaskError, match=r"unknown task 'colour'.*color"):
        load_tasks(PROMPTS, names=["colour"])


def test_a_wrong_key_is_named_with_its_file(tmp_path):
    content = yaml.safe_load((PROMPTS / "color.yaml").read_text())
    (tmp_path / "color.yaml").write_text(yaml.safe_dump(content | {"verb": ["paint"]}))
    with pytest.raises(TaskError, match=r"color\.yaml.*'verb'"):
        load_tasks(tmp_path)


def test_two_tasks_may_not_share_an_index(tmp_path):
    for name in ("color", "texture"):
        content = yaml.safe_load((PROMPTS / "color.yaml").read_text())
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(TaskError, match="share an index"):
        load_tasks(tmp_path)


def test_a_box_around_the_subject_is_refused_for_backgrounds(tmp_path):
    content = yaml.safe_load((PROMPTS / "background.yaml").read_text())
    content["candidates"][0]["mask"] = "box"
    (tmp_path / "background.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(TaskError, match="box would freeze"):
        load_tasks(tmp_path)
