"""What the judge says about candidates: marks, a closer look at what stayed, other instructions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from stages.judge.answer import Caption, Marks, check_caption, parse_caption, parse_marks
from stages.judge.config import JudgeConfig
from stages.judge.prompt import Form, Sight, conversation
from stages.models.chat.attempts import Asked, Question, ask
from stages.models.chat.conversation import ChatModel, Usage
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
    """Asks a vision language model about candidates.

    Args:
        chats: the model by kind of question.
    """

    def __init__(self, config: JudgeConfig, chats: Mapping[Form, ChatModel]) -> None:
        self._config, self._chats = config, chats

    def judge(self, sights: Sequence[Sight]) -> list[Judgement]:
        """The judgement of each candidate."""
        judgements = self._mark(sights)
        if self._config.recaption:
            for place, judgement in self._recaption(sights, judgements).items():
                judgements[place] = judgement
        return judgements

    def _mark(self, sights: Sequence[Sight]) -> list[Judgement]:
        asked = self._ask("marks", sights, lambda sight, text: parse_marks(text))
        judgements = [replace(Judgement().after(a), marks=a.answer, unusable=a.reason) for a in asked]
        if self._config.difference != "second":
            return judgements
        seen = [k for k, sight in enumerate(sights) if sight.difference_png and judgements[k].marks]
        closer = self._ask(
            "consistency", [sights[k] for k in seen], lambda sight, text: parse_marks(text, ["consistency"])
        )
        for k, again in zip(seen, closer, strict=True):
            both = _lower(judgements[k].marks, again.answer)
            judgements[k] = replace(judgements[k].after(again), marks=both, unusable=again.reason)
        return judgements

    def _recaption(self, sights: Sequence[Sight], before: Sequence[Judgement]) -> dict[int, Judgement]:
        """The judgements of good pairs that show something other than asked, with another instruction."""
        other = [k for k, judgement in enumerate(before) if _is_good_but_other(judgement)]
        found = self._ask("recaption", [sights[k] for k in other], _read_caption)
        judgements = {k: before[k].after(asked) for k, asked in zip(other, found, strict=True)}
        captions = {k: asked.answer for k, asked in zip(other, found, strict=True) if asked.answer}
        again = self._mark([_with(sights[k], caption) for k, caption in captions.items()])
        for (k, caption), verified in zip(captions.items(), again, strict=True):
            judgements[k] = _joined(judgements[k], caption, verified)
        return judgements

    def _ask(
        self, form: Form, sights: Sequence[Sight], read: Callable[[Sight, str], Answer]
    ) -> list[Asked[Answer]]:
        shown = form == "consistency" or (form == "marks" and self._config.difference == "same")

        def question(sight: Sight, attempt: int) -> Question:
            messages = conversation(self._config.prompt, form, sight, shown)
            return messages, derive_seed(sight.seed, form, attempt)

        return ask(self._chats[form], sights, question, read, self._config.attempts, "judge")


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
