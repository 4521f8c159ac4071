"""Stages that ask a model which answers in any order: their rows are those of one that answers in batches."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.instruct.stage import Instruct, InstructConfig
from stages.judge.config import JudgeConfig
from stages.judge.stage import JudgeStage
from stages.models.chat.conversation import Question, Reply, Usage
from stages.models.chat.line import BatchModel, Line
from stages.seeds import derive_seed
from tests.stages import tiny_sights
from tests.stages.test_instruct import GOOD, TASKS


def reply_to(question: Question) -> Reply | Exception:
    """Of every kind, by the seed: usable, unusable, cut short, an error."""
    kind = question.seed % 5
    if kind == 4:
        return ConnectionError(f"lost {question.seed % 97}")
    text = json.dumps(GOOD | {"instruction_following": 2, "consistency": 5, "quality": 5, "reason": ""})
    text = text if kind < 2 else f"no {question.seed % 97}"
    return Reply(text, "truncated" if kind == 3 else "stop", Usage(question.seed % 7, 1))


class Streaming:
    """Answers the waiting questions in an order drawn from ``order``."""

    streams = True

    def __init__(self, slots: int = 4, order: Sequence[int] = (0,), keeps: bool = True) -> None:
        self.slots, self._order, self._keeps = slots, order, keeps
        self.asked: list[Question] = []
        self.waiting: dict[int, Question] = {}
        self.used: list[tuple[int, int]] = []
        """How many questions waited, and how many had been asked, each time that an answer came."""
        self.closed = False

    @contextmanager
    def opened(self) -> Iterator[Line]:
        self.waiting, self.closed = {}, False
        try:
            yield self
        finally:
            self.closed = True

    def identity(self, question: Question) -> str | None:
        return f"{question.seed} {question.messages}" if self._keeps else None

    def put(self, number: int, question: Question) -> None:
        assert number not in self.waiting
        assert len(self.waiting) < self.slots
        self.asked.append(question)
        self.waiting[number] = question

    def wait(self) -> Sequence[tuple[int, Reply | Exception]]:
        self.used.append((len(self.waiting), len(self.asked)))
        place = self._order[len(self.used) % len(self._order)] % len(self.waiting)
        number = list(self.waiting)[place]
        return [(number, reply_to(self.waiting.pop(number)))]


class Batched(BatchModel):
    batch = 1000

    def complete(self, conversations: Sequence, seeds: Sequence[int]) -> list[Reply | Exception]:
        return [reply_to(Question(*asked, {})) for asked in zip(conversations, seeds, strict=True)]


class Kept(dict[str, str]):
    """Answers in memory."""

    def put(self, key: str, answer: str) -> None:
        self[key] = answer


def rows(count: int, **columns: object) -> pa.Table:
    row = {"caption": "a red barn on a hill", "task": "color", **columns}
    return pa.Table.from_pylist([{"id": f"row {n}", "seed": n, **row} for n in range(count)])


def instruct(chat: object, answers: Kept | None = None, **config: object) -> Instruct:
    stage = Instruct(InstructConfig(model="m", **config), TASKS, chat)
    stage.answers = answers
    return stage


def streamed(stage, given: pa.Table, batch: int) -> list[pa.Table]:
    made = stage.stream(given.slice(start, batch) for start in range(0, given.num_rows, batch))
    return list(made)


FIRST_SEEDS = {derive_seed(n, "instruct", 1) for n in range(40)}
"""Of the first question about each row of ``rows``."""
ORDERS = st.lists(st.integers(0, 50), min_size=1, max_size=20)


@given(st.integers(0, 25), st.integers(1, 9), st.integers(1, 7), ORDERS, st.booleans())
def test_rows_are_those_of_a_model_that_answers_in_batches_in_whatever_order_replies_come(
    count, slots, batch, order, keeps
):
    chat = Streaming(slots, order)
    made = streamed(instruct(chat, Kept() if keeps else None), rows(count), batch)
    assert [table.num_rows for table in made] == [min(batch, count - s) for s in range(0, count, batch)]
    if count:
        assert pa.concat_tables(made).equals(instruct(Batched())(rows(count)))
    assert chat.closed


@given(st.integers(1, 6), st.integers(1, 4), ORDERS)
def test_the_judges_rows_too_with_several_candidates_and_questions_each(slots, batch, order):
    given_rows = [tiny_sights.row(seed=n, id=f"row {n}") for n in range(5)]
    config = JudgeConfig(model="m", difference="second", recaption=True)
    stage = JudgeStage(config, tiny_sights.TASKS, Streaming(slots, order))
    made = pa.concat_tables(streamed(stage, tiny_sights.table(*given_rows), batch))
    other = JudgeStage(config, tiny_sights.TASKS, Batched())
    assert made.equals(other(tiny_sights.table(*given_rows)))
    assert stage.tokens == other.tokens


def test_every_slot_is_used_while_rows_are_left_and_no_row_is_read_before_there_is_a_slot():
    chat = Streaming(slots=4, order=[3, 1, 2])
    read = []

    def batches() -> Iterator[pa.Table]:
        for start in range(0, 40, 2):
            read.append((start, len(chat.asked)))
            yield rows(40).slice(start, 2)

    streamed_rows = instruct(chat).stream(batches())
    assert sum(table.num_rows for table in streamed_rows) == 40
    last = max(n for n, question in enumerate(chat.asked) if question.seed in FIRST_SEEDS)
    assert {used for used, asked in chat.used if asked <= last} == {4}
    assert all(start <= asked for start, asked in read)


def test_a_refused_row_is_asked_again_at_once_while_a_slow_one_is_waited_for():
    chat = Streaming(slots=2, order=[1])  # the first row's answer comes last
    streamed(instruct(chat), rows(6), 2)
    again = [n for n, question in enumerate(chat.asked) if question.seed not in FIRST_SEEDS]
    assert again[0] < len(chat.asked) - 1, "other rows start after it"
    assert [used for used, _ in chat.used] == [2] * (len(chat.asked) - 1) + [1]


def test_rows_that_ask_nothing_hold_nothing_up():
    chat = Streaming()
    empty = pa.concat_tables([rows(3, caption=""), rows(1)])
    read = []
    batches = (read.append(start) or empty.slice(start, 1) for start in range(4))
    made = instruct(chat).stream(batches)
    assert next(made)["reason"].to_pylist() == ["empty_caption"]
    assert read == [0]
    made.close()
    assert chat.closed


def test_an_answer_that_is_kept_is_not_asked_for_again_and_changes_no_byte():
    answers, first, again = Kept(), Streaming(), Streaming()
    stage, other = instruct(first, answers), instruct(again, answers)
    made = pa.concat_tables(streamed(stage, rows(12), 5))
    assert len(answers) < len(first.asked), "errors are not kept"
    assert pa.concat_tables(streamed(other, rows(12), 4)).equals(made)
    failed = made["status"].to_pylist().count("failed")
    assert failed
    assert len(again.asked) == failed, "only what had failed"
    assert stage.tokens
    assert not other.tokens, "its tokens were counted when it came"


def test_a_changed_prompt_is_asked_and_the_others_are_not():
    answers, chat = Kept(), Streaming()
    streamed(instruct(Streaming(), answers), rows(8), 8)
    changed = pa.concat_tables([rows(8).slice(0, 6), rows(8, caption="a red barn on a field").slice(6)])
    streamed(instruct(chat, answers), changed, 8)
    asked = [question for question in chat.asked if isinstance(reply_to(question), Reply)]
    assert asked
    assert all("field" in question.messages[-1]["content"] for question in asked)


def test_more_attempts_pay_for_the_further_ones_alone():
    answers, chat = Kept(), Streaming()
    streamed(instruct(Streaming(), answers, attempts=1), rows(12), 12)
    before = set(answers)
    made = pa.concat_tables(streamed(instruct(chat, answers, attempts=3), rows(12), 12))
    assert made.equals(instruct(Batched(), attempts=3)(rows(12)))
    assert chat.asked
    assert not before & {chat.identity(question) for question in chat.asked}


def test_a_model_in_process_is_not_streamed_and_keeps_nothing():
    answers = Kept()
    stage = instruct(Batched(), answers)
    assert stage.stream(iter([rows(2)])) is None
    stage(rows(2))
    assert not answers


@pytest.mark.parametrize("where", ["question", "answer"])
def test_what_a_rows_own_code_raises_ends_the_stream_and_closes_the_line(where, monkeypatch):
    chat = Streaming()
    stage = instruct(chat)
    monkeypatch.setattr(stage, f"_{where}", lambda row, told: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        streamed(stage, rows(5), 2)
    assert chat.closed
