"""From a candidate of a task file to an edit row."""

import pytest
import torch
from pydantic import ValidationError

from stages.edit.prompt_to_prompt.captions import Captions
from stages.edit.prompt_to_prompt.recipe import draw_strength, edit_row, local_blend
from stages.edit.prompt_to_prompt.windows import with_candidates
from stages.models.diffusion.prompts import Segment
from stages.tasks import Candidate, Tasks
from tests.stages.tiny_tasks import tiny_task
from toybox.recipes.tokenizer import build_tokenizer

STEPS, LENGTH = 10, 32


@pytest.fixture(scope="module")
def captions():
    segments = [Segment(build_tokenizer(), LENGTH)]
    return Captions(segments, "a red car on a beach", "a blue car on a beach")


def made(candidate: Candidate, captions, seed: int = 1, blend=None):
    strength = draw_strength(candidate, seed, 0, STEPS, 7.5)
    mask = torch.ones(8, 8)
    return edit_row(candidate, strength, captions, index=3, steps=STEPS, mask=mask, blend=blend)


def test_fractions_become_gates(captions):
    row = made(Candidate(cross_until=0.8, self_from=0.1, self_until=0.4), captions)
    assert row.source == 3
    assert row.cross.sum(0).tolist() == [8] * LENGTH
    assert row.self_.nonzero().flatten().tolist() == [1, 2, 3]
    assert not row.shared


def test_steps_become_gates(captions):
    row = made(Candidate(cross_steps=3, self_steps=2), captions)
    assert row.cross[:, 0].sum() == 3
    assert row.self_.sum() == 2


def test_changed_words_have_a_gate_and_a_weight_of_their_own(captions):
    row = made(Candidate(cross_until=1, changed_until=0.2, changed_weight=3), captions)
    assert [int(n) for n in row.cross.sum(0)[:5]] == [10, 10, 2, 10, 10], "blue is the third token"
    assert row.tokens.matrix[2, 2] == 3
    assert row.tokens.matrix[1, 1] == 1


def test_refine_and_replace_can_be_asked_for(captions):
    assert made(Candidate(control="refine", cross_until=1), captions).tokens.own.any()
    assert not made(Candidate(control="replace", cross_until=1), captions).tokens.own.any()


def test_shared_self_attention_has_a_random_strength_of_the_rows_own(captions):
    candidate = Candidate(control="self", strength=(0.1, 0.9), guidance_scale=(7.5, 15))
    strengths = [draw_strength(candidate, seed, 0, STEPS, 7.5) for seed in range(200)]
    assert strengths == [draw_strength(candidate, seed, 0, STEPS, 7.5) for seed in range(200)]
    assert min(s.self_until for s in strengths) < 0.2
    assert max(s.self_until for s in strengths) > 0.8
    assert all(0.1 <= s.self_until <= 0.9 and 7.5 <= s.guidance_scale <= 15 for s in strengths)
    assert draw_strength(candidate, 1, 0, STEPS, 7.5) != draw_strength(candidate, 1, 1, STEPS, 7.5)
    row = made(candidate, captions)
    assert row.shared
    assert not row.cross.any()


def test_the_recorded_strength_is_what_the_gates_do():
    strength = draw_strength(Candidate(cross_steps=3, self_until=0.4), 1, 0, STEPS, 4.0)
    assert int(strength.cross_until * (STEPS + 1)) == 3
    assert strength.self_until == 0.4
    assert strength.guidance_scale == 4.0


def test_local_blend_follows_the_objects_words(captions):
    candidate = Candidate(blend=0.3, cross_until=0.5)
    row = {"original_object": "a red car", "edited_object": "the blue car"}
    blend = local_blend(tiny_task(), candidate, row, captions)
    assert blend.source_words.nonzero().flatten().tolist() == [2, 3]
    assert blend.target_words.nonzero().flatten().tolist() == [2, 3]
    assert blend.threshold == 0.3
    assert local_blend(tiny_task(), Candidate(), row, captions) is None


def test_a_phrase_that_is_not_in_the_caption_is_an_error(captions):
    row = {"original_object": "a green car", "edited_object": "a blue car"}
    with pytest.raises(ValueError, match="'a green car' are not in the caption 'a red car on a beach'"):
        local_blend(tiny_task(), Candidate(blend=0.3), row, captions)


def test_what_is_removed_is_followed_in_the_anchor_alone(captions):
    fields = {"original_object": "in_input", "edited_object": "not_in_output", "caption": "changed"}
    row = {"original_object": "a red car", "edited_object": "a red car"}
    blend = local_blend(tiny_task(fields=fields), Candidate(blend=0.3), row, captions)
    assert not blend.target_words.any()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"control": "self"}, "strength"),
        ({"strength": (0.1, 0.9)}, "strength"),
        ({"control": "self", "strength": (0, 1), "cross_until": 0.5}, "neither gates nor LocalBlend"),
        ({"cross_until": 0.5, "cross_steps": 2}, "not both"),
        ({"self_until": 0.5, "self_steps": 2}, "not both"),
        ({"cross_until": 1.5}, "less than or equal to 1"),
    ],
)
def test_contradictions_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        Candidate(**keys)


def test_local_blend_needs_a_grounded_object():
    with pytest.raises(ValidationError, match="'ground' is none"):
        tiny_task(ground="none", candidates=[{"blend": 0.3}])


def test_a_manifest_can_give_a_task_other_candidates():
    tasks = Tasks({"local": tiny_task(), "color": tiny_task("color")}, known=["remove"])
    own = Candidate(cross_steps=2, self_steps=1)
    changed = with_candidates(tasks, {"local": [own]})
    assert changed["local"].candidates == (own,)
    assert changed["local"].definition == tasks["local"].definition
    assert changed["color"] == tasks["color"]
    assert dict(with_candidates(tasks, {"remove": [own]})) == dict(tasks), "not in this run's mixture"


@pytest.mark.parametrize(
    ("name", "candidates", "message"),
    [
        ("local", [], r"edit\.candidates\.local: prompt2prompt needs at least one"),
        ("local", [Candidate(mask="box")], r"edit\.candidates\.local: a box would freeze"),
        ("locl", [Candidate()], r"edit\.candidates\.locl: there is no such task; tasks: local"),
    ],
)
def test_candidates_that_do_not_suit_a_task_are_refused(name, candidates, message):
    with pytest.raises(ValueError, match=message):
        with_candidates(Tasks({"local": tiny_task(region="background")}), {name: candidates})
