"""The judge stage: a vision language model looks at every candidate and gives marks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from stages.asking import Asking, Decide
from stages.base import Decision, StageConfig, failed, kept, rejected
from stages.judge.config import JudgeConfig
from stages.judge.judge import Judge, Judgement, Recaption
from stages.judge.prompt import Sight
from stages.models.chat.attempts import Talk
from stages.models.chat.conversation import Usage
from stages.models.chat.line import ChatModel
from stages.models.chat.loading import chat_problems, load_vision_chat
from stages.pair import as_pair
from stages.pictures.difference import outside_difference
from stages.pictures.png import decode_rgb, encode_png
from stages.pictures.region import Region
from stages.score.metrics import JUDGED
from stages.seeds import derive_seed
from stages.tasks import Task, Tasks

_RECAPTION = pa.struct(
    [
        ("instruction", pa.string()),
        ("output_caption", pa.string()),
        ("asked_mark", pa.float32()),
        ("mark", pa.float32()),
        ("taken", pa.bool_()),
    ]
)
"""Another instruction; ``judge_instruction`` under the asked one and under this one; whether it counts."""


class JudgeStage(Asking[JudgeConfig]):
    """Asks a model that sees I, Tar and T for marks of each candidate; with ``recaption``, for another T.

    A row fails if a request about one of its candidates failed. It is rejected if no candidate has a usable
    answer, with the reason of the first: ``answer_`` and a reason of :mod:`stages.judge.answer` or an ending
    (``truncated``, ``content_filter``, ``refused``). If some candidates have one, the marks of the others are
    null, which violates every bound on them. Nothing else is decided here: the filter has the bounds.
    """

    version: ClassVar[int] = 1
    needs_section: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task", "seed"],
        "instruct": ["caption", "instruction", "output_caption"],
        "mask": ["precise_mask", "boxes"],
        "edit": ["anchor", "candidates"],
    }
    task_keys: ClassVar[Sequence[str]] = ("direction", "region")
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("judge_scores", pa.list_(pa.struct([(metric, pa.float32()) for metric in JUDGED]))),
            ("judge_reasons", pa.list_(pa.string())),
            ("recaptions", pa.list_(_RECAPTION)),
            ("answers", pa.list_(pa.list_(pa.string()))),
            ("attempts", pa.int32()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = JudgeConfig

    def __init__(
        self, config: JudgeConfig, tasks: Tasks, chat: ChatModel | None = None, *, turn: int = 1
    ) -> None:
        """Use ``chat``, or load the model named in ``config``."""
        super().__init__(config, tasks, turn=turn)
        self.chat = chat if chat is not None else load_vision_chat(config, config.batch, "judge")
        self.judge = Judge(config)

    @classmethod
    def problems(cls, config: JudgeConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.chat.readiness import check_vision_chat

        yield from chat_problems(config, "judge", check_vision_chat)

    def _talks(self, row: Mapping[str, Any]) -> tuple[Sequence[Talk[Any]], Decide]:
        sights = self._sights(self.tasks[row["task"]], row)
        return [self.judge.judge(sight) for sight in sights], self._decide

    def _sights(self, task: Task, row: Mapping[str, Any]) -> list[Sight]:
        """What the judge sees of each candidate."""
        _, outside = Region.from_row(row).metric_regions(task.region)
        sights = []
        for index, candidate in enumerate(row["candidates"]):
            pair = as_pair(task, row["anchor"], candidate["image"], row["caption"], row["output_caption"])
            difference = None
            if self.config.difference != "none" and outside is not None and outside.any():
                i, tar = decode_rgb(pair.input), decode_rgb(pair.target)
                difference = encode_png(outside_difference(i, tar, outside))
            sights.append(
                Sight(
                    pair.input,
                    pair.target,
                    difference,
                    task.name,
                    row["instruction"],
                    pair.input_caption,
                    pair.output_caption,
                    derive_seed(row["seed"], "judge", index),
                )
            )
        return sights

    def _decide(self, judgements: Sequence[Judgement]) -> Decision:
        self.tokens.update(sum((j.usage for j in judgements), Usage()).counted)
        columns = {
            "judge_scores": [dict(j.marks.scores) if j.marks else dict.fromkeys(JUDGED) for j in judgements],
            "judge_reasons": [j.marks.reason if j.marks else None for j in judgements],
            "recaptions": [_column(j.recaption) for j in judgements],
            "answers": [list(j.replies) for j in judgements],
            "attempts": sum(j.attempts for j in judgements),
        }
        for judgement in judgements:
            if judgement.error is not None:
                return failed(judgement.error, **columns)
        if not any(judgement.marks for judgement in judgements):
            return rejected(judgements[0].unusable, **columns)
        return kept(**columns)


def _column(recaption: Recaption | None) -> dict[str, Any] | None:
    if recaption is None:
        return None
    return {
        "instruction": recaption.caption.instruction,
        "output_caption": recaption.caption.output_caption,
        "asked_mark": recaption.asked.scores["judge_instruction"],
        "mark": recaption.mark,
        "taken": recaption.taken,
    }
