"""What the judge says about candidates: marks, a closer look at what stayed, other instructions."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from stages.judge.answer import Caption, Marks, check_caption, parse_caption, parse_marks
from stages.judge.config import JudgeConfig
from stages.judge.prompt import Form, Sight, answer_schema, conversation
from stages.models.chat.attempts import Asked, Talk, ask
from stages.models.chat.conversation import Question, Usage
from stages.seeds import derive_seed

GOOD = 4
"""Least mark of a good pair, and of an instruction that it follows."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Recaption:
    """Another instruction for a pair. It is judged as the first one was, and taken if the pair follows it."""

    caption: Caption
    asked: Marks
    """The marks under the instruction that was asked."""
    mark: float | None
    """The mark ``judge_instruction`` under the other instruction; None if there was no usable answer."""
    taken: bool


@dataclass(frozen=True)
class Judgement:
    """The answers about one candidate."""

    marks: Marks | None = None
    """Under the instruction that counts: the one asked, or another one that was taken."""
    unusable: str = ""
    """Why there are no marks, unless a request failed."""
    error: Exception | None = None
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    replies: tuple[str, ...] = ()
    recaption: Recaption | None = None

    def after(self, asked: Asked[Answer]) -> "Judgement":
        """With the cost of another question, and its error if it failed."""
        return replace(
            self,
            error=self.error or asked.error,
            attempts=self.attempts + asked.attempts,
            usage=self.usage + asked.usage,
            replies=(*self.replies, asked.reply),
        )


class Judge:
    """The questions to a vision language model about a candidate."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config = config

    def judge(self, sight: Sight) -> Talk[Judgement]:
        """The judgement of a candidate."""
        judgement = yield from self._mark(sight)
        if self._config.recaption and _is_good_but_other(judgement):
            return (yield from self._recaption(sight, judgement))
        return judgement

    def _mark(self, sight: Sight) -> Talk[Judgement]:
        asked = yield from self._ask("marks", sight, parse_marks)
        judgement = replace(Judgement().after(asked), marks=asked.answer, unusable=asked.reason)
        if self._config.difference != "second" or not sight.difference_png or not judgement.marks:
            return judgement
        again = yield from self._ask("consistency", sight, lambda text: parse_marks(text, ["consistency"]))
        both = _lower(judgement.marks, again.answer)
        return replace(judgement.after(again), marks=both, unusable=again.reason)

    def _recaption(self, sight: Sight, before: Judgement) -> Talk[Judgement]:
        """The judgement of a good pair that shows something other than asked, with another instruction."""
        asked = yield from self._ask("recaption", sight, partial(_read_caption, sight))
        judgement, caption = before.after(asked), asked.answer
        if not caption:
            return judgement
        verified = yield from self._mark(_with(sight, caption))
        return _joined(judgement, caption, verified)

    def _ask(self, form: Form, sight: Sight, read: Callable[[str], Answer]) -> Talk[Asked[Answer]]:
        shown = form == "consistency" or (form == "marks" and self._config.difference == "same")
        messages = conversation(self._config.prompt, form, sight, shown)
        schema = answer_schema(form)
        return ask(
            lambda attempt: Question(messages, derive_seed(sight.seed, form, attempt), schema),
            read,
            self._config.attempts,
            "judge",
        )


def _is_good_but_other(judgement: Judgement) -> bool:
    if judgement.marks is None or judgement.error is not None:
        return False
    scores = judgement.marks.scores
    good = min(scores["judge_consistency"], scores["judge_quality"]) >= GOOD
    return good and scores["judge_instruction"] < GOOD


def _read_caption(sight: Sight, text: str) -> Caption | None:
    caption = parse_caption(text)
    if caption is not None:
        check_caption(caption, sight.instruction, sight.input_caption)
    return caption


def _with(sight: Sight, caption: Caption) -> Sight:
    return replace(sight, instruction=caption.instruction, output_caption=caption.output_caption)


def _joined(first: Judgement, caption: Caption, verified: Judgement) -> Judgement:
    """The judgement under the asked instruction, or under the other one if the pair follows that."""
    assert first.marks is not None
    marks = verified.marks
    mark = marks.scores["judge_instruction"] if marks else None
    taken = mark is not None and mark >= GOOD
    return replace(
        first,
        marks=marks if marks and taken else first.marks,
        error=first.error or verified.error,
        attempts=first.attempts + verified.attempts,
        usage=first.usage + verified.usage,
        replies=first.replies + verified.replies,
        recaption=Recaption(caption, first.marks, mark, taken),
    )


def _lower(first: Marks | None, closer: Marks | None) -> Marks | None:
    """The first marks with the lower one for consistency; None if one of the two is missing."""
    if first is None or closer is None:
        return None
    name = "judge_consistency"
    if closer.scores[name] >= first.scores[name]:
        return first
    return Marks({**first.scores, name: closer.scores[name]}, f"{first.reason} {closer.reason}".strip())
