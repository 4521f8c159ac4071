"""The shards stage: the published rows ``(I, T, Tar, TI)``, and the dataset card.

All rows of all tasks have one Arrow schema with typed columns. Pictures are ``struct{bytes, path}``:
``datasets`` shows them as pictures, pandas gives their bytes.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from upath import UPath

from stages.base import Stage, StageConfig, kept, to_table
from stages.candidate import Policy
from stages.pair import as_pair, inverse_instruction
from stages.pictures.png import encode_png
from stages.pictures.region import MaskedRegion
from stages.publisher import Publisher, PublisherConfig
from stages.score.metrics import SCORE_COLUMNS, scores_of
from stages.shards.card import (
    Columns,
    audit_section,
    columns_table,
    dataset_card,
    front_matter,
    provenance,
)
from stages.shards.columns import COLUMNS, JUDGED_COLUMNS, SCHEMA, huggingface_metadata, schema_of
from stages.tasks import Task


class ShardsConfig(PublisherConfig):
    """The manifest's section ``shards``."""

    batch: int = Field(
        default=32,
        ge=1,
        le=10_000,
        description="rows of a row group; small, so that text can be read without pictures",
    )


class Shards(Publisher[ShardsConfig]):
    """Turns the kept rows of a fixed group of parts into published rows.

    The engine writes them to ``train-*.parquet`` with ``schema_metadata`` and without status and reason. At
    the end it asks for a card about all shards (:meth:`describe`).
    """

    version: ClassVar[int] = 4
    light: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task", "seed"],
        "instruct": ["caption", "instruction", "edited_object", "original_object", "output_caption"],
        "mask": ["precise_mask", "smooth_mask", "soft_mask", "boxes"],
        "edit": ["anchor", "candidates"],
        "score": [SCORE_COLUMNS["score"]],
        "filter": ["choice"],
        "task_check": ["checked_task"],
        "run": ["models"],
    }
    task_keys: ClassVar[Sequence[str]] = ("index", "method", "direction", "region", "inverse")
    schema: ClassVar[pa.Schema] = SCHEMA
    schema_metadata: ClassVar[Mapping[bytes, bytes]] = huggingface_metadata(
        pa.schema([("id", pa.string()), *SCHEMA])
    )
    Config: ClassVar[type[StageConfig]] = ShardsConfig
    columns: ClassVar[Columns] = COLUMNS

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        return JudgedShards if "judge" in stages else cls

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = [kept(**self._published(row)) for row in rows.to_pylist()]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _published(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task, candidate = self.tasks[row["task"]], row["candidates"][row["choice"]]
        pair = as_pair(task, row["anchor"], candidate["image"], row["caption"], row["output_caption"])
        labelled = self.tasks[row["checked_task"]]
        backwards = inverse_instruction(task, row) if labelled is task else None
        return {
            "I": {"bytes": pair.input, "path": f"{row['id']}-input.png"},
            "T": row["instruction"],
            "Tar": {"bytes": pair.target, "path": f"{row['id']}-target.png"},
            "TI": labelled.index,
            "T_inverse": backwards,
            "TI_inverse": task.inverse.index if backwards and task.inverse else None,
            "mask": {"bytes": _mask(task, candidate["mask"], row), "path": f"{row['id']}-mask.png"},
            "task": labelled.name,
            "task_planned": task.name,
            "input_caption": pair.input_caption,
            "output_caption": pair.output_caption,
            "edited_object": row["edited_object"],
            "original_object": row["original_object"],
            "boxes": row["boxes"],
            "method": task.method,
            "mask_policy": candidate["mask"],
            "self_until": candidate["self_until"],
            "cross_until": candidate["cross_until"],
            "guidance": candidate["guidance_scale"],
            "seed": row["seed"],
            "models": row["models"],
            "thresholded": candidate["thresholded"],
            "session": row["id"],
            "turn": self.turn,
            **scores_of(row)[row["choice"]],
        }

    @classmethod
    def describe(cls, run: Path | UPath, summary: Mapping[str, Any]) -> str:
        """The dataset card of a run; see :class:`stages.publisher.Publisher`."""
        tasks: Counter[str] = Counter()
        for folder, files in summary["files"].items():
            for shard in files:
                with (run / folder / shard["name"]).open("rb") as file:
                    tasks.update(pq.read_table(file, columns=["task"])["task"].to_pylist())
        return _card(summary, tasks, cls.columns)


class JudgedShards(Shards):
    """The shards stage in a run with a judge: its marks and its words are published too.

    If the judge wrote another instruction for a pair, T and the output caption are the judge's. The phrases
    of the asked edit and the way back do not describe the pair then, and are null.
    """

    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        **Shards.reads,
        "judge": [SCORE_COLUMNS["judge"], "judge_reasons", "recaptions"],
    }
    columns: ClassVar[Columns] = JUDGED_COLUMNS
    schema: ClassVar[pa.Schema] = schema_of(JUDGED_COLUMNS)
    schema_metadata: ClassVar[Mapping[bytes, bytes]] = huggingface_metadata(
        pa.schema([("id", pa.string()), *schema])
    )

    def _published(self, row: Mapping[str, Any]) -> dict[str, Any]:
        columns = super()._published(row)
        columns |= {"judge_reason": row["judge_reasons"][row["choice"]], "instruction_origin": "instruct"}
        other = row["recaptions"][row["choice"]]
        if other is None or not other["taken"]:
            return columns
        return {
            **columns,
            **dict.fromkeys(("edited_object", "original_object", "T_inverse", "TI_inverse")),
            "T": other["instruction"],
            "output_caption": other["output_caption"],
            "instruction_origin": "judge",
            "T_asked": row["instruction"],
        }


def _mask(task: Task, policy: Policy, row: Mapping[str, Any]) -> bytes:
    """The mask M of the edit. If no mask guided the edit, the soft mask of its region."""
    mask = MaskedRegion.from_row(row).edit_mask(task.region, "soft" if policy == "none" else policy)
    return encode_png(np.round(mask * 255).astype(np.uint8))


_EXAMPLE = """```python
import pandas

rows = pandas.read_parquet("{folder}")  # pictures are in rows.I[0]["bytes"]
```

Where `T_inverse` is not null, the pair is good backwards too: `(Tar, T_inverse, I, TI_inverse)`, with the
captions swapped."""


def _card(summary: Mapping[str, Any], tasks: Mapping[str, int], columns: Columns) -> str:
    what, told, by_task, models = provenance(summary, tasks)
    header = front_matter(
        summary["name"],
        {"train": [f"{name}/train-*.parquet" for name in summary["files"]]},
        summary["published"],
        pa.schema([(name, dtype) for name, (dtype, _) in columns.items()]),
    )
    example = _EXAMPLE.format(folder=next(iter(summary["files"])))
    end = "A score that does not apply to a task is null. `sha256sum -c SHA256SUMS` checks the files."
    audited = audit_section(summary)
    return dataset_card(header, what, told, example, by_task, *audited, models, columns_table(columns), end)
