"""Legal answers of the drawn world: accepted by the stage, true of the scene, in every verb."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.instruct.answer import check_answer, parse_answer
from stages.instruct.prompt import answer_text, verb_of
from stages.tasks import load_tasks
from toybox.world.answers import TASKS as WORLD_TASKS
from toybox.world.answers import Description, answers, changes, sample_answer, sample_description
from toybox.world.scene import CAPTION_FORMS, JOINERS, Scene, Thing, caption, sample_scene
from toybox.world.wordings import TEMPLATES

TASKS = load_tasks(Path(__file__).parents[2] / "prompts", names=WORLD_TASKS)
NAMES = pytest.mark.parametrize("name", list(TASKS))
PLAIN = Description("plain", "and")


def scene_of(*things: str, background: str = "beach", time: str = "day") -> Scene:
    """A scene of things such as ``striped red car``."""
    placed = []
    for words in things:
        *texture, color, kind = words.split()
        placed.append(Thing(kind, color, texture[0] if texture else "plain", 0.5, 0.6, 0.2))
    return Scene(tuple(placed), background, time, 0.5, 0)


def outcomes(scene: Scene, task: str, description: Description = PLAIN) -> set[str]:
    return {change.output_caption for change in changes(scene, description, task)}


@NAMES
def test_every_verb_of_the_task_is_worded(name):
    assert set(TEMPLATES[name]) == set(TASKS[name].verbs)


@NAMES
@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_every_answer_passes_the_checks_of_its_task_and_begins_with_its_verb(name, seed):
    rng = np.random.default_rng(seed)
    scene, description, task = sample_scene(rng), sample_description(rng), TASKS[name]
    verb = task.verbs[rng.integers(len(task.verbs))]
    legal = answers(scene, description, name, verb)
    for exemplar in legal[:: max(1, len(legal) // 40)]:
        assert exemplar.caption == description.of(scene)
        assert verb_of(task, exemplar.edit) == verb
        assert "{" not in exemplar.edit
        assert "  " not in exemplar.edit
        check_answer(parse_answer(answer_text(exemplar)), exemplar.caption, task.fields)
    drawn = sample_answer(scene, description, name, verb, rng)
    assert drawn in legal if legal else drawn is None


@NAMES
def test_all_forms_and_joiners_of_captions_are_kept(name):
    scene = scene_of("red car") if name == "add" else scene_of("red car", "dotted blue ball")
    for form in CAPTION_FORMS:
        for joiner in JOINERS:
            for text in outcomes(scene, name, Description(form, joiner)):
                assert text.startswith("a picture of") == (form == "picture")
                if name not in ("add", "remove"):
                    assert f" {joiner} " in text


def test_removal_leaves_the_other_object_or_the_bare_place():
    assert outcomes(scene_of("red car", "blue ball"), "remove") == {
        "a red car on a beach",
        "a blue ball on a beach",
    }
    night = scene_of("red car", time="night")
    assert outcomes(night, "remove") == {"a beach at night"}
    assert changes(scene_of(), PLAIN, "remove") == []


def test_an_added_object_stands_where_the_instruction_says():
    scene = scene_of("red car")
    for exemplar in answers(scene, PLAIN, "add", "add"):
        first = exemplar.output_caption.index(exemplar.edited_object)
        if "right" in exemplar.edit:
            assert first > 0
        if "left" in exemplar.edit:
            assert first == 0
    assert changes(scene_of("red car", "blue ball"), PLAIN, "add") == []
    assert "a beach with a red car" in outcomes(scene_of(), "add")


def test_one_attribute_changes_and_the_rest_is_the_same_scene():
    scene = scene_of("striped red car", "blue ball")
    assert "a striped green car and a blue ball on a beach" in outcomes(scene, "color")
    assert "a red car and a blue ball on a beach" in outcomes(scene, "texture")
    assert "a striped red house and a blue ball on a beach" in outcomes(scene, "local")
    assert caption(scene) not in outcomes(scene, "color") | outcomes(scene, "texture") | outcomes(
        scene, "local"
    )


def test_background_names_all_that_stays_and_the_new_place_as_the_caption_does():
    scene = scene_of("red car", "blue ball")
    [snow] = [c for c in changes(scene, PLAIN, "background") if "snow" in c.output_caption]
    assert (snow.original_object, snow.edited_object) == ("a red car and a blue ball", "the snow")
    first = replace(PLAIN, form="place first")
    assert "a snowy field" in {c.edited_object for c in changes(scene, first, "background")}


def test_day_becomes_night_and_night_day():
    assert outcomes(scene_of("red car"), "global") == {"a red car on a beach at night"}
    assert outcomes(scene_of("red car", time="night"), "global") == {"a red car on a beach"}


@pytest.mark.parametrize("name", ["detect", "segment"])
def test_pointing_changes_no_word_of_the_caption(name):
    scene = scene_of("red car", "blue ball")
    found = changes(scene, PLAIN, name)
    assert {change.output_caption for change in found} == {caption(scene)}
    assert {change.original_object for change in found} == {"a red car", "a blue ball"}
