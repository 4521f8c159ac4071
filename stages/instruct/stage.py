"""The instruct stage: a language model turns captions into edit instructions, and its answers are checked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from stages.base import Decision, Stage, StageConfig, failed, kept, rejected, to_table
from stages.instruct.answer import AnswerError, check_answer, has_control_characters, parse_answer
from stages.instruct.prompt import ANSWER_SCHEMA, SYSTEM, conversation, draw_prompt
from stages.models.chat.config import ChatConfig
from stages.models.chat.conversation import ChatModel, Reply
from stages.seeds import derive_seed
from stages.tasks import Task, Tasks
from stages.words import normalised

_MAX_ANSWER_CHARS = 20_000
"""Characters kept of a reply, counted from its end: thoughts come first."""
_ENDINGS = {
    "truncated": "answer_truncated: raise instruct.max_new_tokens",
    "content_filter": "answer_content_filter",
    "refused": "answer_refused",
}
"""Reasons for replies that did not end normally. Such a reply is never used."""


class InstructConfig(StageConfig, ChatConfig):
    """The manifest's section ``instruct``."""

    attempts: int = Field(3, ge=1, le=100, description="most attempts per row before it is rejected")
    max_caption_chars: int = Field(2000, ge=1, le=1_000_000, description="longer captions are rejected")
    system: str = Field(SYSTEM, description="the system message before the task's definition")


class Instruct(Stage[InstructConfig]):
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
        self.chat = chat if chat is not None else _load_chat(config)

    @classmethod
    def problems(cls, config: InstructConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.chat.readiness import check_chat, endpoint_problems
        from stages.models.weight_files import problems_of

        yield from _without_exemplars(tasks)
        if config.endpoint is not None:
            yield from endpoint_problems(config.endpoint)
        else:
            yield from problems_of("instruct", config, check_chat)

    def resize(self, batch: int) -> None:
        super().resize(batch)
        self.chat.batch = batch

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions: dict[str, Decision] = {}
        asked = []
        for row in rows.to_pylist():
            caption, reason = self._read(row["caption"] or "")
            if reason:
                decisions[row["id"]] = rejected(reason, attempts=0)
            else:
                asked.append({**row, "caption": caption})
        for attempt in range(1, self.config.attempts + 1):
            decisions |= self._ask(asked, attempt)
            asked = [row for row in asked if decisions[row["id"]].status == "rejected"]
        ids = rows["id"].to_pylist()
        return to_table(ids, [decisions[id] for id in ids], self.schema)

    def _read(self, caption: str) -> tuple[str, str]:
        """The normalised caption, and a rejection reason; the reason is empty for a usable caption."""
        if len(caption.strip()) > self.config.max_caption_chars:
            return "", "caption_too_long"
        caption = normalised(caption)
        if not caption:
            return "", "empty_caption"
        return caption, "control_characters" if has_control_characters(caption) else ""

    def _ask(self, rows: list[dict[str, Any]], attempt: int) -> dict[str, Decision]:
        if not rows:
            return {}
        tasks = [self.tasks[row["task"]] for row in rows]
        seeds = [derive_seed(row["seed"], "instruct", attempt) for row in rows]
        draws = [
            draw_prompt(task, derive_seed(seed, "choice")) for task, seed in zip(tasks, seeds, strict=True)
        ]
        conversations = [
            conversation(
                task,
                [task.exemplars[index] for index in draw.exemplars],
                row["caption"],
                draw.verb,
                self.config.system,
            )
            for task, draw, row in zip(tasks, draws, rows, strict=True)
        ]
        replies = self.chat.complete(conversations, seeds)
        decisions = {}
        for row, task, draw, reply in zip(rows, tasks, draws, replies, strict=True):
            made = {
                "caption": row["caption"],
                "verb": draw.verb,
                "exemplars": draw.exemplars,
                "attempts": attempt,
            }
            if isinstance(reply, Exception):
                decisions[row["id"]] = failed(reply, **made)
            else:
                decisions[row["id"]] = _decide(task, reply, made)
        return decisions


def _without_exemplars(tasks: Tasks) -> Iterator[str]:
    for task in tasks.values():
        if not task.exemplars:
            yield f"prompts/{task.name}.yaml: key 'exemplars' is empty; instruct needs some"


def _decide(task: Task, reply: Reply, made: dict[str, Any]) -> Decision:
    made["answer"] = reply.text[-_MAX_ANSWER_CHARS:].encode(errors="replace").decode()
    if reply.ending != "stop":
        return rejected(_ENDINGS[reply.ending], **made)
    try:
        answer = parse_answer(reply.text)
        check_answer(answer, made["caption"], task.fields)
    except AnswerError as error:
        return rejected(f"answer_{error}", **made)
    return kept(
        instruction=answer.edit,
        edited_object=answer.edited_object,
        original_object=answer.original_object,
        output_caption=made["caption"] if task.fields.caption == "same" else answer.output_caption,
        surroundings=answer.surroundings,
        **made,
    )


def _load_chat(config: InstructConfig) -> ChatModel:
    if config.endpoint is not None:
        from stages.models.chat.openai_chat import OpenAIChat

        return OpenAIChat(config, config.endpoint, config.batch, ANSWER_SCHEMA)
    from stages.models.chat.transformers_chat import Sampling, TransformersChat, load

    model, tokenizer = load(config.name, config.revision, config.dtype)
    sampling = Sampling(
        temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
    )
    return TransformersChat(model, tokenizer, sampling, config.batch, config.prompt_multiple)
