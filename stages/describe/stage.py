"""The describe stage: pictures without captions get one from a vision language model."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from stages.asking import Asking, Decide
from stages.base import PICTURES, Decision, StageConfig, failed, kept, rejected
from stages.describe.config import DescribeConfig
from stages.given_picture import without_picture
from stages.models.chat.attempts import Asked, Talk, ask
from stages.models.chat.conversation import Message, Picture, Question
from stages.models.chat.last_object import AnswerError
from stages.models.chat.line import ChatModel
from stages.models.chat.loading import chat_problems, load_vision_chat
from stages.pictures.photograph import PhotographError, nearest_size, open_photograph, shown
from stages.pictures.png import encode_png
from stages.seeds import derive_seed
from stages.tasks import Tasks
from stages.words import normalised, words_of
from stages.written_caption import ANSWER_SCHEMA, caption_in


class Describe(Asking[DescribeConfig]):
    """Asks a vision language model for the caption of each picture that has none; others keep theirs.

    The model sees the part of the picture that is edited, at most ``side`` pixels long. The question and its
    seed depend on the picture alone, so that all edits of a picture ask the same. The shorten and
    instruct stages read the caption written here, and all later stages the one of instruct. The plan keeps
    what the captions' file has.

    Rejection reasons of a row without a caption: those of :func:`stages.given_picture.without_picture` and
    :class:`stages.pictures.photograph.PhotographError`; with the prefix ``answer_`` that of the last answer:
    ``too_many_words``, those of :func:`stages.written_caption.caption_in`, or the answer's ending.
    """

    version: ClassVar[int] = 1
    needs_section: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["caption"],
        PICTURES: ["picture_bytes", "picture_flaw"],
    }
    task_keys: ClassVar[Sequence[str]] = ()
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("caption", pa.string()),
            ("caption_origin", pa.string()),
            ("attempts", pa.int32()),
            ("answer", pa.string()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = DescribeConfig

    def __init__(
        self, config: DescribeConfig, tasks: Tasks, chat: ChatModel | None = None, *, turn: int = 1
    ) -> None:
        """Use ``chat``, or load the model named in ``config``."""
        super().__init__(config, tasks, turn=turn)
        self.chat = chat if chat is not None else load_vision_chat(config, config.batch, "describe")

    @classmethod
    def problems(cls, config: DescribeConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.chat.readiness import check_vision_chat

        yield from chat_problems(config, "describe", check_vision_chat)

    def _talks(self, row: Mapping[str, Any]) -> tuple[Sequence[Talk[Any]], Decide]:
        caption = row["caption"] or ""
        if normalised(caption):
            return [], lambda results: kept(caption=caption, caption_origin="captions", attempts=0)
        if flawed := without_picture(row):
            return [], lambda results: flawed
        try:
            png = self._seen(row["picture_bytes"])
        except PhotographError as error:
            reason = str(error)
            return [], lambda results: rejected(reason)
        talk = ask(partial(self._question, png), self._answer, self.config.attempts, "describe")
        return [talk], lambda results: self._decide(results[0])

    def _seen(self, data: bytes) -> bytes:
        """The edited part of a picture as PNG.

        Raises:
            PhotographError: the picture cannot be used.
        """
        image = open_photograph(data)
        proportions = [size or (1, 1) for size in self.config.diffusion.sizes]
        return encode_png(shown(image, nearest_size(image, proportions), self.config.side))

    def _question(self, png: bytes, attempt: int) -> Question:
        # Each attempt asks for less: a model that writes too much once does so again.
        words = max(1, round(self.config.words * 0.85 ** (attempt - 1)))
        content = [
            f"At most {words} words about this picture:",
            Picture(png),
            "Look at the picture and answer with the JSON object: caption.",
        ]
        messages = [
            Message(role="system", content=self.config.system),
            Message(role="user", content=content),
        ]
        seed = derive_seed(hashlib.blake2b(png).hexdigest(), "describe", attempt)
        return Question(messages, seed, ANSWER_SCHEMA)

    def _answer(self, reply: str) -> str:
        """The caption in a reply.

        Raises:
            AnswerError: it cannot be used.
        """
        caption = caption_in(reply)
        if len(words_of(caption)) > self.config.words:
            raise AnswerError("too_many_words")
        return caption

    def _decide(self, asked: Asked[str]) -> Decision:
        self.tokens.update(asked.usage.counted)
        made: dict[str, Any] = {"attempts": asked.attempts}
        if asked.error is not None:
            return failed(asked.error, **made)
        made["answer"] = asked.reply
        if asked.answer is None:
            return rejected(asked.reason, **made)
        return kept(caption=asked.answer, caption_origin="describe", **made)
