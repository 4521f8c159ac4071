"""Captions to edit instructions: a language model answers in context, its answers are checked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

import pyarrow as pa
from pydantic import BeforeValidator, ConfigDict, Field, field_validator

from stages.base import Decision, Section, Stage, StageConfig, Weights, failed, kept, rejected, to_table
from stages.instruct.answer import AnswerError, check_answer, has_control_characters, parse_answer
from stages.instruct.prompt import SYSTEM, Message, choose, conversation
from stages.models.chat.address import checked_address, checked_variable
from stages.models.chat.reply import Reply
from stages.seeds import derive_seed
from stages.tasks import Task, Tasks
from stages.words import normalised

Parameter = Literal["temperature", "top_p", "max_tokens", "seed", "response_format"]
"""What a request to an endpoint says besides the model and the messages."""
PARAMETERS: tuple[Parameter, ...] = get_args(Parameter)
_MAX_ANSWER_CHARS = 20_000
"""What of a reply is kept, from its end: thoughts come first."""
_ENDINGS = {
    "truncated": "answer_truncated: raise instruct.max_new_tokens",
    "content_filter": "answer_content_filter",
    "refused": "answer_refused",
}
"""Why a reply that did not end by itself is no answer, whatever it says."""


class ChatModel(Protocol):
    """What the stage needs of a language model, in process or behind an endpoint."""

    batch: int
    """Conversations at a time, in process; a server has batches of its own."""

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> Sequence[Reply | Exception]:
        """The next turn of each conversation, or why there is none; conversation i draws from
        ``seeds[i]`` alone."""
        ...


class EndpointConfig(Section):
    """Where an OpenAI-compatible server is and how it is asked. Not part of the fingerprint."""

    model_config = ConfigDict(hide_input_in_errors=True)
    identity: ClassVar[bool] = False

    base_url: str = Field(description="such as http://127.0.0.1:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="the environment variable with the key")
    concurrency: int = Field(32, ge=1, le=4096, description="requests a worker has under way at once")
    timeout_seconds: float = Field(
        120, gt=0, le=86_400, description="of one request, until its answer is read"
    )
    retries: int = Field(5, ge=0, le=100, description="of a request that may pass yet, with growing pauses")

    _address = field_validator("base_url")(checked_address)
    _variable = field_validator("api_key_variable")(checked_variable)


class InstructConfig(StageConfig, Weights):
    """The manifest's section ``instruct``. With an ``endpoint``, ``model`` is the server's name for it."""

    endpoint: EndpointConfig | None = Field(None, description="None: transformers, in process")
    parameters: Mapping[Parameter, Annotated[str, BeforeValidator(lambda name: name or "")]] = Field(
        default={},
        description="what the endpoint's model calls a parameter of requests, such as max_tokens: "
        "max_completion_tokens; null leaves it out, such as seed: null",
    )
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

    @field_validator("parameters")
    @classmethod
    def _distinct(cls, parameters: Mapping[Parameter, str]) -> Mapping[Parameter, str]:
        names = [parameters.get(name, name) for name in PARAMETERS] + ["model", "messages"]
        twice = {name for name in names if name and names.count(name) > 1}
        if twice:
            raise ValueError(f"two things of a request would be called {', '.join(sorted(twice))}")
        return parameters

    @property
    def path(self) -> Path | None:
        """A server's name for its model is no path here, whatever it looks like."""
        return super().path if self.endpoint is None else None


class Instruct(Stage):
    """Asks for an edit of each caption, at most ``attempts`` times, each with another seed.

    The caption is normalised here (:func:`stages.words.normalised`), and all later stages read it from
    here: the plan holds it as it was read.

    Rejection reasons: ``empty_caption``, ``caption_too_long``, ``control_characters`` (of the
    caption), and with the prefix ``answer_`` those of the last answer (:mod:`stages.instruct.answer`) or
    how it ended: ``truncated``, ``content_filter``, ``refused``.
    """

    version: ClassVar[int] = 3
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

    def __init__(self, config: InstructConfig, tasks: Tasks, chat: ChatModel | None = None) -> None:
        """Load the model that ``config`` names, unless one is given."""
        for problem in _without_exemplars(tasks):
            raise ValueError(problem)
        self.config, self.tasks = config, tasks
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
        """The caption as it is published, and why it is not asked about; empty if it is."""
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
        replies = self.chat.complete(conversations, seeds)
        decisions = {}
        for row, task, choice, reply in zip(rows, tasks, choices, replies, strict=True):
            made = {
                "caption": row["caption"],
                "verb": choice.verb,
                "exemplars": choice.exemplars,
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

        return OpenAIChat(config, config.endpoint)
    from stages.models.chat.transformers_chat import Sampling, TransformersChat, load

    model, tokenizer = load(config.name, config.revision, config.dtype)
    sampling = Sampling(
        temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens
    )
    return TransformersChat(model, tokenizer, sampling, config.batch, config.prompt_multiple)
