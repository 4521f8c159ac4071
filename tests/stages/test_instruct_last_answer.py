"""Which of the JSON objects in a reply is the answer: the last complete one that has an answer's keys."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.instruct.answer import AnswerError, parse_answer


def answer(what: str, **keys: object) -> dict[str, object]:
    return {
        "original_object": "car",
        "edit": f"change the car into a {what}",
        "edited_object": what,
        "output_caption": f"a {what} on a beach",
        "surroundings": "",
        **keys,
    }


DRAFT, FINAL = json.dumps(answer("zeppelin")), json.dumps(answer("boat"))
NESTED = json.dumps(answer("boat", notes={"edit": "change the car into a zeppelin", "output_caption": "x"}))


@pytest.mark.parametrize(
    "text",
    [
        f"<think>First try: {DRAFT} but a boat is better.</think>\n{FINAL}",
        f"First try: {DRAFT} but a boat is better.</think>\n{FINAL}",
        f"<THINKING>{DRAFT}</THINKING> <think>{DRAFT}</think> {FINAL}",
        f"{FINAL}\n<think>Or else {DRAFT}",
        f"[THINK]{DRAFT}[/THINK]{FINAL}",
        f"<seed:think>{DRAFT}</seed:think>{FINAL}",
        f"◁think▷{DRAFT}◁/think▷{FINAL}",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>{FINAL}",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{FINAL}",
        f"Draft:\n```json\n{DRAFT}\n```\nBetter:\n```json\n{FINAL}\n```\nI hope that helps {{smile}}!",
        f"{DRAFT}{FINAL}",
        f"[{DRAFT}, {FINAL}]",
        f'{{"answers": [{DRAFT}, {FINAL}]}}',
        f'{{"draft": {DRAFT}, "final": {FINAL}}}',
        f'{{"draft": {DRAFT}, "final": {FINAL}',
        f'{FINAL} The caption was {{"caption": "a car on a beach", "verb": "change"}}.',
        f'{DRAFT} {{"a": [1, {{"b": "}}"}}]}} {FINAL} {{}} {{"edit',
        f'{{"edit": "unfinished {FINAL}',
        f'{{"edit": "unfinished", "x": [{FINAL}',
        NESTED,
        f"{DRAFT} {NESTED}",
        FINAL.replace('"surroundings": ""', '"surroundings": "sand and {\\"edit\\": \\"x\\"} {}"'),
        f"\ufeff{DRAFT}\r\n{FINAL}\x00",
    ],
)
def test_the_last_complete_answer_counts(text):
    assert parse_answer(text).edit == "change the car into a boat"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"<think>{DRAFT}</think> I would rather not.", "not_json"),
        (f"[THINK]{DRAFT}[/THINK]", "not_json"),
        (f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>", "not_json"),
        (f"<|channel|>analysis<|message|>{DRAFT}", "not_json"),
        (f"<think>First try: {DRAFT} but a boat is better, so", "not_json"),
        (f"<think>{DRAFT}</think> {FINAL[:-20]}", "not_json"),
        ('{"caption": "a car"} {"verb": "change"}', "missing_field"),
    ],
)
def test_a_thought_is_no_answer(text, reason):
    with pytest.raises(AnswerError, match=reason):
        parse_answer(text)


def test_an_answer_that_there_is_nothing_to_edit_is_one():
    assert parse_answer(f'Draft: {DRAFT}. But that makes no sense: {{"edit": ""}}').edit == ""
    assert parse_answer('{"edit": "paint it"}').output_caption == ""


@given(st.text(), st.text(st.characters(exclude_characters="{<")))
@example('{"', "")
@example('{"edit": "x", "output_caption": ', "}")
@example('{"x": [', "]}")
@example("\\" * 3 + '"', '"')
@example("[" * 5000, "")
def test_whatever_stands_around_it_the_last_answer_is_found(before, after):
    """Not after a thought's opening, and not inside of an object that has an answer's keys itself."""
    text = f"{before.replace('<', '(')}{DRAFT} {FINAL}{after}"
    found = parse_answer(text)
    assert found.edit in ("change the car into a boat", "x")
    assert found.edit != "x" or '"edit"' in before


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_an_answer_is_found_in_any_wrapping(value):
    wrapped = {"before": value, "answer": answer("boat")}
    assert parse_answer(json.dumps([wrapped, {"after": value}])).edit == "change the car into a boat"


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        '{"',
        '{"a":',
        '{"a":[',
        '{"a":"b",',
        '{"":{"',
        "[{",
        '{"a":{}',
        "{}",
        "{ ",
        '{"edit":"',
        "<think>",
        "{\\",
        '{"\\"',
    ],
)
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_hostile_text_takes_no_longer_than_its_length(unit, size):
    start = time.process_time()
    with pytest.raises(AnswerError):
        parse_answer(unit * (size // len(unit)))
    assert time.process_time() - start < 5, "read from each of its openings it would take minutes"
