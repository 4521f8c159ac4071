"""The judge's answers, read as data."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.judge.answer import MAX_REASON_CHARS, parse_caption, parse_marks
from stages.judge.prompt import MARKS, answer_schema
from stages.models.chat.last_object import AnswerError

GOOD = {"reason": "fine", "instruction_following": 5, "consistency": 4.5, "quality": 1}
DRAFT = json.dumps(GOOD | {"quality": 5})


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"<think>{DRAFT}</think>{json.dumps(GOOD)}",
        f"{DRAFT}\n```json\n{json.dumps(GOOD)}\n```",
        f'{json.dumps(GOOD)} {{"quality": 5}}',
        json.dumps({"answer": GOOD}),
        json.dumps(GOOD | {"more": {"quality": 5}}),
    ],
)
def test_the_last_object_with_all_marks_counts(text):
    marks = parse_marks(text)
    assert marks.scores == {"judge_instruction": 5, "judge_consistency": 4.5, "judge_quality": 1}
    assert marks.reason == "fine"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("The edit is perfect: 5/5.", "not_json"),
        (json.dumps(GOOD)[:-1], "not_json"),
        ('{"score": 5}', "missing_field"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "quality"}), "missing_field"),
        *(
            (json.dumps(GOOD | {"quality": value}), "not_a_mark")
            for value in ("5", True, None, 0, 6, -1, [5])
        ),
        (json.dumps(GOOD | {"quality": float("nan")}), "not_a_mark"),
        (json.dumps(GOOD | {"quality": float("inf")}), "not_a_mark"),
        (json.dumps(GOOD).replace("4.5", "1e400"), "not_a_mark"),
        (json.dumps(GOOD).replace("4.5", "9" * 400), "not_a_mark"),
    ],
)
def test_an_unusable_answer_has_a_short_reason(text, reason):
    with pytest.raises(AnswerError) as raised:
        parse_marks(text)
    assert str(raised.value) == reason


@given(st.text(max_size=60), st.recursive(st.none() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_any_reply_gives_marks_in_range_or_a_counted_reason(before, value):
    for mark in MARKS:
        try:
            marks = parse_marks(before + json.dumps(GOOD | {mark: value}))
        except AnswerError as error:
            fine = str(error).replace("_", "").isalpha()
        else:
            fine = all(1 <= score <= 5 for score in marks.scores.values())
        assert fine


@pytest.mark.parametrize("reason", [None, 5, ["x"], "x" * 100_000, "a\u0000b \x1b[31m"])
def test_a_strange_reason_costs_no_marks(reason):
    marks = parse_marks(json.dumps(GOOD | {"reason": reason}))
    assert isinstance(marks.reason, str)
    assert len(marks.reason) <= MAX_REASON_CHARS


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"instruction": 5, "output_caption": "x"}, "not_text"),
        ({"instruction": "x" * 401, "output_caption": "x"}, "too_long"),
        ({"instruction": "paint it \u0000", "output_caption": "x"}, "control_characters"),
        ({"instruction": "paint it", "output_caption": "<img src=x>"}, "markup"),
        ({"caption": "x"}, "missing_field"),
    ],
)
def test_another_instruction_is_checked_like_those_of_instruct(content, reason):
    with pytest.raises(AnswerError, match=reason):
        parse_caption(json.dumps(content))


def test_no_other_instruction_is_an_answer():
    assert parse_caption('{"instruction": "", "output_caption": ""}') is None


@pytest.mark.parametrize("form", ["marks", "consistency", "recaption"])
def test_a_server_is_asked_for_exactly_the_keys(form):
    schema = answer_schema(form)["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False
