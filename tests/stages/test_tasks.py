"""The sixteen task files, and the toybox's exemplars for them."""

from pathlib import Path

import pytest
import yaml

from stages.edit.annotations.adjust import OPERATIONS, adjustment
from stages.instruct.answer import check_answer, parse_answer, words_of
from stages.instruct.prompt import answer_text, verb_of
from stages.score.metrics import METRICS
from stages.tasks import TaskError, load_tasks
from stages.written_text import new_text
from toybox.world.scene import vocabulary

ROOT = Path(__file__).parents[2]
PROMPTS, TOYBOX_EXEMPLARS = ROOT / "prompts", ROOT / "toybox" / "exemplars"
INDICES = {
    "local": 0,
    "remove": 1,
    "add": 2,
    "texture": 3,
    "background": 4,
    "global": 5,
    "style": 6,
    "text": 7,
    "detect": 8,
    "segment": 9,
    "color": 10,
    "adjust": 11,
    "sketch": 12,
    "depth": 13,
    "normal": 14,
    "pose": 15,
}
TOYBOX = sorted(path.stem for path in TOYBOX_EXEMPLARS.glob("*.yaml"))
NAMES = pytest.mark.parametrize("name", INDICES)


def test_the_sixteen_tasks_keep_their_published_indices():
    assert {name: task.index for name, task in load_tasks(PROMPTS).items()} == INDICES


@NAMES
def test_a_task_has_sixteen_real_exemplars(name):
    real = load_tasks(PROMPTS)[name].exemplars
    assert len(real) >= 16
    assert len({exemplar.caption for exemplar in real}) == len(real)
    assert len({exemplar.edit for exemplar in real}) == len(real)


@pytest.mark.parametrize("name", TOYBOX)
def test_the_toybox_has_four_exemplars_of_each_of_its_tasks(name):
    assert len(load_tasks(PROMPTS, TOYBOX_EXEMPLARS, [name])[name].exemplars) == 4


@NAMES
def test_the_real_exemplars_use_every_verb(name):
    task = load_tasks(PROMPTS)[name]
    assert {verb_of(task, exemplar.edit) for exemplar in task.exemplars} == set(task.verbs)


@pytest.mark.parametrize(
    ("name", "exemplars"),
    [*((name, None) for name in INDICES), *((name, TOYBOX_EXEMPLARS) for name in TOYBOX)],
)
def test_exemplars_are_answers_their_own_task_accepts(name, exemplars):
    task = load_tasks(PROMPTS, exemplars, [name])[name]
    for exemplar in task.exemplars:
        assert verb_of(task, exemplar.edit) in task.verbs
        check_answer(parse_answer(answer_text(exemplar)), exemplar.caption, task.fields)


@pytest.mark.parametrize("name", TOYBOX)
def test_toybox_exemplars_speak_of_the_drawn_world_only(name):
    known = set(vocabulary())
    for exemplar in load_tasks(PROMPTS, TOYBOX_EXEMPLARS, [name])[name].exemplars:
        assert set(words_of(exemplar.caption)) <= known
        assert set(words_of(exemplar.output_caption)) <= known


def test_exemplars_of_what_can_be_adjusted_say_what_and_how_strongly():
    for exemplars in (None, TOYBOX_EXEMPLARS):
        task = load_tasks(PROMPTS, exemplars, ["adjust"])["adjust"]
        assert set(task.verbs) == set(OPERATIONS)
        assert all(adjustment(exemplar.edit) for exemplar in task.exemplars)


def test_exemplars_of_text_quote_it():
    for exemplar in load_tasks(PROMPTS)["text"].exemplars:
        assert new_text(exemplar.original_object) or new_text(exemplar.edited_object)


def test_an_inverse_s_slots_are_known(tmp_path):
    content = yaml.safe_load((PROMPTS / "color.yaml").read_text())
    content["inverse"]["instruction"] = "paint it {colour} again"
    (tmp_path / "color.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(TaskError, match=r"inverse.*slots of caption"):
        load_tasks(tmp_path)


@NAMES
def test_bounds_catch_a_target_in_which_nothing_changed(name):
    task = load_tasks(PROMPTS)[name]
    assert set(task.metrics) <= set(METRICS)
    assert any(task.thresholds[m].min > 0 for m in ("change", "change_inside") if m in task.thresholds)
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
