"""The start of a later turn in a session: the picture and caption that the previous turn ended with."""

import random
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from stages.base import Decision, Stage, StageConfig, kept, rejected, to_table
from stages.pair import as_pair
from stages.seeds import derive_seed
from stages.source.stage import SourceConfig
from stages.tasks import Task, Tasks

_TURN = {
    "task": pa.string(),
    "caption": pa.string(),
    "output_caption": pa.string(),
    "surroundings": pa.string(),
    "original_object": pa.string(),
    "edited_object": pa.string(),
    "seed": pa.int64(),
    "candidate": pa.int32(),
    "boxes": pa.list_(pa.list_(pa.float32())),
    "precise_mask": pa.binary(),
    "smooth_mask": pa.binary(),
    "soft_mask": pa.binary(),
}
"""Everything needed to draw a turn again.

``candidate`` is the chosen candidate's number (:mod:`stages.edit.rounds`).
"""


class Before(Stage[SourceConfig]):
    """Starts a later turn with the inputs that plan and source stage provide in the first turn.

    The picture is exactly the Tar of the previous turn, and the caption describes it. The task is drawn from
    the run's forward Prompt-to-Prompt tasks: a reverse task draws its input last, and an annotation has no
    latents. ``history`` holds the turns so far; the edit stage draws them again together with its own turn.

    Rejection: ``session_ended``, after a turn that was not drawn by Prompt-to-Prompt.
    """

    version: ClassVar[int] = 1
    light: ClassVar[bool] = True
    reads: ClassVar = {
        "plan": ["task", "seed"],
        "instruct": ["caption", "output_caption", "surroundings", "original_object", "edited_object"],
        "mask": ["boxes", "precise_mask", "smooth_mask", "soft_mask"],
        "edit": ["anchor", "candidates"],
        "filter": ["choice"],
    }
    task_keys: ClassVar = ["method", "direction"]
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("caption", pa.string()),
            ("task", pa.string()),
            ("seed", pa.int64()),
            ("source_image", pa.binary()),
            ("history", pa.list_(pa.struct(list(_TURN.items())))),
        ]
    )
    Config: ClassVar[type[StageConfig]] = SourceConfig

    def __init__(self, config: SourceConfig, tasks: Tasks, *, turn: int = 2) -> None:
        super().__init__(config, tasks, turn=turn)
        self.later = sorted(name for name, task in tasks.items() if may_come_later(task))
        if not self.later:
            raise ValueError(
                "turns: a later turn needs a task of method prompt2prompt and direction forward; "
                f"tasks.mixture has {', '.join(tasks)}"
            )

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = [self._begin(row) for row in rows.to_pylist()]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _begin(self, row: Mapping[str, Any]) -> Decision:
        task, candidate = self.tasks[row["task"]], row["candidates"][row["choice"]]
        if task.method != "prompt2prompt":
            return rejected("session_ended")
        pair = as_pair(task, row["anchor"], candidate["image"], row["caption"], row["output_caption"])
        seed = derive_seed(row["seed"], "turn", self.turn)
        drawn = {name: row[name] for name in _TURN if name != "candidate"}
        return kept(
            caption=pair.output_caption,
            task=random.Random(derive_seed(seed, "task")).choice(self.later),
            seed=seed,
            source_image=pair.target,
            history=[*row.get("history", []), {**drawn, "candidate": candidate["candidate"]}],
        )


def may_come_later(task: Task) -> bool:
    """Whether a task can edit the picture of an earlier turn."""
    return task.method == "prompt2prompt" and task.direction == "forward"
