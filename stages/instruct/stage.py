"""The instruct stage: a language model turns captions into edit instructions, and its answers are checked."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from stages.asking import Asking, Decide
from stages.base import Decision, Stage, StageConfig, failed, kept, rejected
from stages.instruct.answer import Answer, check_answer, has_control_characters, parse_answer
from stages.instruct.prompt import ANSWER_SCHEMA, SYSTEM, PromptDraw, conversation, draw_prompt
from stages.models.chat.attempts import Asked, Talk, ask
from stages.models.chat.config import TextChatConfig
from stages.models.chat.conversation import Question
from stages.models.chat.line import ChatModel
from stages.models.chat.loading import chat_problems, load_chat
from stages.seeds import derive_seed
from stages.tasks import Task, Tasks
from stages.words import normalised


class InstructConfig(StageConfig, TextChatConfig):
    """The manifest's section ``instruct``."""

    attempts: int = Field(3, ge=1, le=100, description="most attempts per row before it is rejected")
    max_caption_chars: int = Field(2000, ge=1, le=1_000_000, description="longer captions are rejected")
    system: str = Field(SYSTEM, description="the system message before the task's definition")


class Instruct(Asking[InstructConfig]):
    """Asks for an edit of each caption, at most ``attempts`` times, each time with another seed.

    The caption is normalised here (:func:`stages.words.normalised`). Later stages read the normalised
    caption; the plan keeps the original.

    Rejection reasons: ``empty_caption``, ``caption_too_long``, ``control_characters`` (all about the
    caption), and with the prefix ``answer_`` the reason of the last answer (:mod:`stages.instruct.answer`) or
    its ending: ``truncated``, ``content_filter``, ``refused``.
    """

    version: ClassVar[int] = 4
    reads: ClassVar[Mapping[str, Sequence[str]]] = {"plan": ["caption", "task", "seed"]}
    task_keys: ClassVar[Sequence[str]] = ["definition", "verbs", "fields", "exemplars"]
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("caption", pa.string()),
            ("instruction", pa.string()),
            ("edited_object", pa.string()),
            ("original_object", pa.string()),
            ("output_caption", pa.string()),
            ("surroundings", pa.string()),
            ("verb", pa.string()),
            ("exemplars", pa.list_(pa.int32())),
            ("attempts", pa.int32()),
            ("answer", pa.string()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = InstructConfig

    def __init__(
        self, config: InstructConfig, tasks: Tasks, chat: ChatModel | None = None, *, turn: int = 1
    ) -> None:
        """Use ``chat``, or load the model named in ``config``."""
        super().__init__(config, tasks, turn=turn)
        for problem in _without_exemplars(tasks):
            raise ValueError(problem)
        gpus = config.resources.gpus
        self.chat = chat if chat is not None else load_chat(config, config.batch, gpus, "instruct")

    @classmethod
    def problems(cls, config: InstructConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.chat.readiness import check_chat

        yield from _without_exemplars(tasks)
        yield from chat_problems(config, "instruct", check_chat)

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        if "shorten" in stages:
            return InstructShort
        return InstructDescribed if "describe" in stages else cls

    def _talks(self, row: Mapping[str, Any]) -> tuple[Sequence[Talk[Any]], Decide]:
        caption, reason = self._read(row["caption"] or "")
        if reason:
            return [], lambda results: rejected(reason, attempts=0)
        read = {**row, "caption": caption}
        talk = ask(
            partial(self._question, read), partial(self._answer, read), self.config.attempts, "instruct"
        )
        return [talk], lambda results: self._decide(read, results[0])

    def _read(self, caption: str) -> tuple[str, str]:
        """The normalised caption, and a rejection reason; the reason is empty for a usable caption."""
        if len(caption.strip()) > self.config.max_caption_chars:
            return "", "caption_too_long"
        caption = normalised(caption)
        if not caption:
            return "", "empty_caption"
        return caption, "control_characters" if has_control_characters(caption) else ""

    def _question(self, row: Mapping[str, Any], attempt: int) -> Question:
        task, seed = self.tasks[row["task"]], derive_seed(row["seed"], "instruct", attempt)
        draw = _draw(task, seed)
        exemplars = [task.exemplars[index] for index in draw.exemplars]
        messages = conversation(task, exemplars, row["caption"], draw.verb, self.config.system)
        return Question(messages, seed, ANSWER_SCHEMA)

    def _answer(self, row: Mapping[str, Any], reply: str) -> Answer:
        answer = parse_answer(reply)
        check_answer(answer, row["caption"], self.tasks[row["task"]].fields)
        return answer

    def _decide(self, row: Mapping[str, Any], asked: Asked[Answer]) -> Decision:
        self.tokens.update(asked.usage.counted)
        task = self.tasks[row["task"]]
        draw = _draw(task, derive_seed(row["seed"], "instruct", asked.attempts))
        made = {
            "caption": row["caption"],
            "verb": draw.verb,
            "exemplars": draw.exemplars,
            "attempts": asked.attempts,
        }
        if asked.error is not None:
            return failed(asked.error, **made)
        made["answer"] = asked.reply
        if asked.answer is None:
            return rejected(asked.reason, **made)
        return kept(
            instruction=asked.answer.edit,
            edited_object=asked.answer.edited_object,
            original_object=asked.answer.original_object,
            output_caption=row["caption"] if task.fields.caption == "same" else asked.answer.output_caption,
            surroundings=asked.answer.surroundings,
            **made,
        )


class InstructShort(Instruct):
    """The instruct stage in a run with short captions: it reads those of the shorten stage."""

    reads: ClassVar[Mapping[str, Sequence[str]]] = {"shorten": ["caption"], "plan": ["task", "seed"]}


class InstructDescribed(Instruct):
    """The instruct stage in a run whose pictures are described: it reads the captions of that stage."""

    reads: ClassVar[Mapping[str, Sequence[str]]] = {"describe": ["caption"], "plan": ["task", "seed"]}


def _without_exemplars(tasks: Tasks) -> Iterator[str]:
    for task in tasks.values():
        if not task.exemplars:
            yield f"prompts/{task.name}.yaml: key 'exemplars' is empty; instruct needs some"


def _draw(task: Task, seed: int) -> PromptDraw:
    return draw_prompt(task, derive_seed(seed, "choice"))
