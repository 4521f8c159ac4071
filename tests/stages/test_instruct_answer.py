"""Answers of a language model: parsed as data, checked against their task."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.instruct.answer import AnswerError, check_answer, parse_answer
from stages.instruct.prompt import answer_text
from stages.tasks import load_tasks

ROOT = Path(__file__).parents[2]
TASKS = load_tasks(ROOT / "prompts")
GOOD = {
    "edit": "paint the barn blue",
    "edited_object": "a blue barn",
    "output_caption": "a blue barn on a hill",
    "original_object": "a red barn",
}
CAPTION = "a red barn on a hill"
GONE = {"edited_object": "a red barn", "output_caption": "a hill", "surroundings": "grass"}


def judge(task: str, caption: str = CAPTION, **changed: str) -> str:
    """The reason the task gives against the good answer with some fields changed; empty if none."""
    try:
        check_answer(parse_answer(json.dumps(GOOD | changed)), caption, TASKS[task].fields)
    except AnswerError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "wrapping",
    ["%s", "```json\n%s\n```", "Sure! Here it is:\n%s\nAnything else?", "{not this} %s", "\ufeff%s"],
)
def test_the_object_is_found_in_fences_and_small_talk(wrapping):
    assert parse_answer(wrapping % json.dumps(GOOD)).edit == GOOD["edit"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I cannot help with that.", "not_json"),
        ("{'edit': 'paint'}", "not_json"),
        ('{"edit": "paint', "not_json"),
        ('["edit"]', "not_json"),
        ("__import__('os').system('true')", "not_json"),
        ('{"a": ' * 5000, "not_json"),
        ('{"edit": ' + "[" * 15_000, "not_json"),
        ('{"caption": "a cat"}', "missing_field"),
        (json.dumps(GOOD | {"edit": ["paint"]}), "not_text"),
        (json.dumps(GOOD | {"original_object": 7}), "not_text"),
        (json.dumps(GOOD | {"edit": "paint " * 100}), "too_long"),
        (json.dumps(GOOD | {"output_caption": "a barn " * 500}), "too_long"),
        (json.dumps(GOOD | {"edit": "paint\x00 it"}), "control_characters"),
        (json.dumps(GOOD | {"edit": "paint\nit"}), "control_characters"),
        ('{"edit": "paint \\ud800 it"}', "control_characters"),
    ],
)
def test_bad_answers_have_a_short_reason_and_are_never_run(text, reason):
    with pytest.raises(AnswerError) as raised:
        parse_answer(text)
    assert str(raised.value) == reason


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_an_answer_or_a_counted_reason(text):
    reason = ""
    try:
        assert isinstance(parse_answer(text).edit, str)
    except AnswerError as error:
        reason = str(error)
    reasons = ("not_json", "missing_field", "not_text", "too_long", "control_characters", "markup", "empty")
    assert reason in ("", *reasons)


@pytest.mark.parametrize(
    ("task", "changed", "reason"),
    [
        ("color", {}, ""),
        ("color", {"original_object": "The red barn."}, ""),
        ("color", {"edit": " "}, "instruction_empty"),
        ("color", {"output_caption": ""}, "output_caption_empty"),
        ("color", {"output_caption": "A red barn, on a hill!"}, "caption_unchanged"),
        ("color", {"original_object": ""}, "original_object_empty"),
        ("color", {"original_object": "a red bar"}, "original_object_not_in_input"),
        ("color", {"original_object": "hill red"}, "original_object_not_in_input"),
        ("color", {"edited_object": "a green barn"}, "edited_object_not_in_output"),
        ("remove", GONE, ""),
        ("remove", GONE | {"surroundings": ""}, "surroundings_empty"),
        ("remove", GONE | {"surroundings": "grass by the red barn"}, "surroundings_name_object"),
        ("remove", {"edited_object": "barn"}, "edited_object_in_output"),
        ("add", {}, "original_object_present"),
        ("add", {"original_object": "", "surroundings": "a hill"}, ""),
        ("add", {"original_object": "", "surroundings": "Blue barn"}, "surroundings_name_object"),
        ("color", {"surroundings": "a hill"}, ""),
        ("global", {"original_object": "", "edited_object": ""}, ""),
        ("detect", {"output_caption": CAPTION, "edited_object": ""}, ""),
        ("detect", {"edited_object": ""}, "caption_changed"),
        ("segment", {"output_caption": CAPTION}, "edited_object_present"),
    ],
)
def test_answers_are_held_against_the_fields_of_their_task(task, changed, reason):
    assert judge(task, **changed) == reason


@pytest.mark.parametrize(
    "original",
    [
        "the baker\u2019s café",
        "the baker&#39;s cafe\u0301",
        "THE BAKER&amp;#x27;S CAFÉ",
        "\uff42\uff41\uff4b\uff45\uff52\uff07\uff53 café",
        "baker\u00b4s ca\u00adfé",
    ],
)
def test_words_are_the_same_however_they_are_spelled(original):
    changed = {"original_object": original, "edited_object": "blue barn"}
    assert judge("color", "the baker's café by a hill", **changed) == ""


@pytest.mark.parametrize(
    ("caption", "original", "reason"),
    [
        ("一辆红色的车停在海滩上", "红色的车", ""),
        ("一辆红色的车停在海滩上", "蓝色的车", "original_object_not_in_input"),
        ("赤い車がビーチにある", "車", ""),
        ("รถสีแดงบนชายหาด", "รถสีแดง", ""),
        ("รถสีแดงบนชายหาด", "รถสีดำ", "original_object_not_in_input"),
    ],
)
def test_languages_without_spaces_are_matched_as_text(caption, original, reason):
    assert judge("color", caption, original_object=original) == reason


def test_what_an_answer_says_is_published_in_plain_characters():
    answer = parse_answer(json.dumps(GOOD | {"edit": " change the sign to \u201c\uff2fpen\u201d&nbsp; "}))
    assert answer.edit == 'change the sign to "Open"'
    with pytest.raises(AnswerError, match="markup"):
        parse_answer(json.dumps(GOOD | {"edit": "paint it &lt;b&gt;blue&lt;/b&gt;"}))


def test_left_out_and_null_phrases_count_as_empty():
    answer = parse_answer(
        '{"edit": "make it night", "output_caption": "a hill at night", "edited_object": null}'
    )
    assert (answer.edited_object, answer.original_object) == ("", "")


BAD_ANSWERS = [json.loads(line) for line in (ROOT / "tests" / "data" / "bad_answers.jsonl").open()]


def test_two_hundred_bad_answers_are_repaired_or_rejected_with_their_reason():
    """``why`` says what is wrong with the answer, ``outcome`` what must become of it."""
    assert len(BAD_ANSWERS) == 200
    for bad in BAD_ANSWERS:
        try:
            check_answer(parse_answer(bad["answer"]), bad["caption"], TASKS[bad["task"]].fields)
            outcome = "kept"
        except AnswerError as error:
            outcome = str(error)
        assert outcome == bad["outcome"], bad


def test_what_is_kept_of_a_bad_answer_is_the_good_one_within_it():
    for bad in BAD_ANSWERS:
        if bad["why"] == "small talk and a fence":
            exemplar = next(e for e in TASKS[bad["task"]].exemplars if e.caption == bad["caption"])
            answer = parse_answer(bad["answer"])
            assert (answer.edit, answer.output_caption) == (exemplar.edit, exemplar.output_caption)


@pytest.mark.parametrize("task", list(TASKS))
def test_no_exemplar_is_taken_for_talk_or_markup(task):
    for exemplar in TASKS[task].exemplars:
        check_answer(parse_answer(answer_text(exemplar)), exemplar.caption, TASKS[task].fields)
