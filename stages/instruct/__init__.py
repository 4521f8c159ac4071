"""Captions to edit instructions: a language model answers in context, its answers are checked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa
from pydantic import Field

from stages.base import Decision, Section, Stage, StageConfig, Weights, failed, kept, rejected, to_table
from stages.instruct.answer import (
    MAX_ANSWER_CHARS,
    AnswerError,
    check_answer,
    has_control_characters,
    parse_answer,
)
from stages.instruct.prompt import SYSTEM, Message, choose, conversation
from stages.seeds import derive_seed
from stages.tasks import Task, Tasks


class ChatModel(Protocol):
    """What the stage needs of a language model, in process or behind an endpoint."""

    batch: int
    """Conversations at a time, in process; a server has batches of its own."""

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> Sequence[str | Exception]:
        """The next turn of each conversation, or why there is none; conversation i draws from
        ``seeds[i]`` alone."""
        ...


class EndpointConfig(Section):
    """Where an OpenAI-compatible server is and how it is asked. Not part of the fingerprint."""

    identity: ClassVar[bool] = False

    base_url: str = Field(description="such as http://127.0.0.1:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="the environment variable with the key")
    concurrency: int = Field(32, ge=1, le=4096, description="requests a worker has under way at once")
    timeout_seconds: float = Field(120, gt=0, le=86_400, description="of one request")
    retries: int = Field(5, ge=0, le=100, description="of a request that may pass yet, with growing pauses")


class InstructConfig(StageConfig, Weights):
    """The manifest's section ``instruct``. With an ``endpoint``, ``model`` is the server's name for it."""

    endpoint: EndpointConfig | None = Field(None, description="None: transformers, in process")
    json_schema: bool = Field(True, description="ask an endpoint for answers of the JSON schema")
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    attempts: int = Field(3, ge=1, le=100, description="how often a row is asked before it is rejected")
    temperature: float = Field(0.9, ge=0, le=100, description="Emu Edit: 0.9")
    top_p: float = Field(0.9, gt=0, le=1, description="Emu Edit: 0.9")
    max_new_tokens: int = Field(256, ge=1, le=1 << 16)
    prompt_multiple: int = Field(
        64, ge=1, le=4096, description="prompts are padded to a multiple of it, in tokens"
    )
    max_caption_chars: int = Field(2000, ge=1, le=1_000_000, description="longer captions are rejected")
    system: str = Field(SYSTEM, description="the system message before the task's definition")

    @property
    def path(self) -> Path | None:
        """A server's name for its model is no path here, whatever it looks like."""
        return super().path if self.endpoint is None else None


class Instruct(Stage):
    """Asks for an edit of each caption, at most ``attempts`` times, each with another seed.

    Rejection reasons: ``empty_caption``, ``caption_too_long``, ``control_characters`` (of the
    caption), and those of the last answer (:mod:`stages.instruct.answer`) with the prefix
    ``answer_``.
    """

    version: ClassVar[int] = 2
    reads: ClassVar[Mapping[str, Sequence[str]]] = {"plan": ["caption", "task", "seed"]}
    task_keys: ClassVar[Sequence[str]] = ["definition", "verbs", "fields", "exemplars"]
    schema: ClassVar[pa.Schema] = pa.schema(
        [
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

    def __init__(self, config: InstructConfig, tasks: Tasks, chat: ChatModel | None = None) -> None:
        """Load the model that ``config`` names, unless one is given."""
        for problem in _without_exemplars(tasks):
            raise ValueError(problem)
        self.config, self.tasks = config, tasks
        self.chat = chat if chat is not None else _load_chat(config)

    @classmethod
    def problems(cls, config: InstructConfig, tasks: Tasks) -> Iterator[str]:
        from stages.instruct.readiness import check_chat, endpoint_problems
        from stages.weight_files import problems_of

        yield from _without_exemplars(tasks)
        if config.endpoint is not None:
            yield from endpoint_problems(config.endpoint)
        else:
            yield from problems_of("instruct", config, check_chat)

    def resize(self, batch: int) -> None:
        super().resize(batch)
        self.chat.batch = batch

    def __call__(self, rows: pa.Table) -> pa.Table:
        records = rows.to_pylist()
        decisions: dict[str, Decision] = {}
        asked = []
        for row in records:
            reason = self._refusal(row["caption"])
            if reason:
                decisions[row["id"]] = rejected(reason, attempts=0)
            else:
                asked.append(row)
        for attempt in range(1, self.config.attempts + 1):
            decisions |= self._ask(asked, attempt)
            asked = [row for row in asked if decisions[row["id"]].status == "rejected"]
        ids = [row["id"] for row in records]
        return to_table(ids, [decisions[id] for id in ids], self.schema)

    def _refusal(self, caption: str | None) -> str:
        """Why a caption is not asked about; empty if it is."""
        if not caption or not caption.strip():
            return "empty_caption"
        if len(caption) > self.config.max_caption_chars:
            return "caption_too_long"
        return "control_characters" if has_control_characters(caption) else ""

    def _ask(self, rows: list[dict[str, Any]], attempt: int) -> dict[str, Decision]:
        if not rows:
            return {}
        tasks = [self.tasks[row["task"]] for row in rows]
        seeds = [derive_seed(row["seed"], "instruct", attempt) for row in rows]
        choices = [choose(task, derive_seed(seed, "choice")) for task, seed in zip(tasks, seeds, strict=True)]
        conversations = [
            conversation(
                task,
                [task.exemplars[index] for index in choice.exemplars],
                row["caption"],
                choice.verb,
                self.config.system,
            )
            for task, choice, row in zip(tasks, choices, rows, strict=True)
        ]
        texts = self.chat.complete(conversations, seeds)
        decisions = {}
        for row, task, choice, text in zip(rows, tasks, choices, texts, strict=True):
            made = {"verb": choice.verb, "exemplars": choice.exemplars, "attempts": attempt}
            if isinstance(text, Exception):
                decisions[row["id"]] = failed(text, **made)
            else:
                decisions[row["id"]] = _decide(row["caption"], task, text, made)
        return decisions


def _without_exemplars(tasks: Tasks) -> Iterator[str]:
    for task in tasks.values():
        if not task.exemplars:
            yield f"prompts/{task.name}.yaml: key 'exemplars' is empty; instruct needs some"


def _decide(caption: str, task: Task, text: str, made: dict[str, Any]) -> Decision:
    made["answer"] = text[:MAX_ANSWER_CHARS].encode(errors="replace").decode()
    try:
        answer = parse_answer(text)
        check_answer(answer, caption, task.fields)
    except AnswerError as error:
        return rejected(f"answer_{error}", **made)
    return kept(
        instruction=answer.edit,
        edited_object=answer.edited_object,
        original_object=answer.original_object,
        output_caption=caption if task.fields.caption == "same" else answer.output_caption,
        surroundings=answer.surroundings,
        **made,
    )


def _load_chat(config: InstructConfig) -> ChatModel:
    if config.endpoint is not None:
        from stages.instruct.openai_chat import OpenAIChat

        return OpenAIChat(config, config.endpoint)
    from stages.instruct.transformers_chat import Sampling, TransformersChat, load

    model, tokenizer = load(config.name, config.revision, config.dtype)
    sampling = Sampling(
        temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
    )
    return TransformersChat(model, tokenizer, sampling, config.batch, config.prompt_multiple)
