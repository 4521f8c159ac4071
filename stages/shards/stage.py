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
    code,
    columns_table,
    dataset_card,
    front_matter,
    provenance,
)
from stages.shards.columns import (
    CHOICES,
    COLUMNS,
    OTHER_COLUMNS,
    SCHEMA,
    columns_of,
    metadata_of,
    schema_of,
)
from stages.shards.others import OTHERS
from stages.tasks import Task, Tasks


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

    version: ClassVar[int] = 5
    light: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task", "seed"],
        "instruct": ["caption", "instruction", "edited_object", "original_object", "output_caption"],
        "mask": ["precise_mask", "smooth_mask", "soft_mask", "boxes"],
        "edit": ["anchor", "candidates"],
        "score": [SCORE_COLUMNS["score"]],
        "filter": ["choice", "inverse_reason"],
        "task_check": ["checked_task"],
        "run": ["models"],
    }
    task_keys: ClassVar[Sequence[str]] = ("index", "method", "direction", "region", "inverse")
    schema: ClassVar[pa.Schema] = SCHEMA
    schema_metadata: ClassVar[Mapping[bytes, bytes]] = metadata_of(COLUMNS)
    Config: ClassVar[type[StageConfig]] = ShardsConfig
    columns: ClassVar[Columns] = COLUMNS
    others: ClassVar[tuple[str, ...]] = ()
    """Optional stages of the run, and other options that add columns."""

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        return _BESIDE[tuple(name for name in OTHER_COLUMNS if name in stages)]

    @classmethod
    def bytes_a_pixel(cls, config: ShardsConfig, tasks: Tasks) -> int:
        return 3 + 3 + 1  # I, Tar and the mask

    def __call__(self, rows: pa.Table) -> pa.Table:
        decisions = [kept(**self._published(row)) for row in rows.to_pylist()]
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _published(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task, candidate = self.tasks[row["task"]], row["candidates"][row["choice"]]
        pair = as_pair(task, row["anchor"], candidate["image"], row["caption"], row["output_caption"])
        labelled = self.tasks[row["checked_task"]]
        backwards = inverse_instruction(task, row) if labelled is task else None
        flaw = row["inverse_reason"] if backwards else None
        backwards = None if flaw else backwards
        columns = {
            "I": {"bytes": pair.input, "path": f"{row['id']}-input.png"},
            "T": row["instruction"],
            "Tar": {"bytes": pair.target, "path": f"{row['id']}-target.png"},
            "TI": labelled.index,
            "T_inverse": backwards,
            "TI_inverse": task.inverse.index if backwards and task.inverse else None,
            "T_inverse_rejected": flaw or None,
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
        for name in self.others:
            columns |= OTHERS[name].columns(row, columns)
        return columns

    @classmethod
    def describe(cls, run: Path | UPath, summary: Mapping[str, Any]) -> str:
        """The dataset card of a run; see :class:`stages.publisher.Publisher`."""
        tasks, backward = Counter[str](), Counter[str]()
        for folder, files in summary["files"].items():
            for shard in files:
                with (run / folder / shard["name"]).open("rb") as file:
                    table = pq.read_table(file, columns=["task", "TI_inverse", "T_inverse_rejected"])
                tasks.update(table["task"].to_pylist())
                backward.update(flaw for flaw in table["T_inverse_rejected"].to_pylist() if flaw)
                backward[""] += table.num_rows - table["TI_inverse"].null_count
        return _card(summary, tasks, backward, cls.columns)


def _class_beside(others: tuple[str, ...]) -> type[Shards]:
    if not others:
        return Shards
    reads: dict[str, Sequence[str]] = dict(Shards.reads)
    for stage, names in (entry for name in others for entry in OTHERS[name].reads.items()):
        reads[stage] = [*reads.get(stage, ()), *names]
    columns = columns_of(others)
    content = {
        "__module__": __name__,
        "__doc__": f"The shards stage in a run with {', '.join(others)}.",
        "others": others,
        "reads": reads,
        "columns": columns,
        "schema": schema_of(columns),
        "schema_metadata": metadata_of(columns),
    }
    return type("Shards", (Shards,), content)


_BESIDE = {others: _class_beside(others) for others in CHOICES}
"""The class for each choice of optional stages: what a stage reads and writes belongs to its class."""


def _mask(task: Task, policy: Policy, row: Mapping[str, Any]) -> bytes:
    """The mask M of the edit. If no mask guided the edit, the soft mask of its region."""
    mask = MaskedRegion.from_row(row).edit_mask(task.region, "soft" if policy == "none" else policy)
    return encode_png(np.round(mask * 255).astype(np.uint8))


_EXAMPLE = """```python
import pandas

rows = pandas.read_parquet("{folder}")  # pictures are in rows.I[0]["bytes"]
```

Where `T_inverse` is not null, the pair is good backwards too: `(Tar, T_inverse, I, TI_inverse)`, with the
captions swapped. These are {backward} pairs{flaws}."""


def _card(
    summary: Mapping[str, Any], tasks: Mapping[str, int], backward: Mapping[str, int], columns: Columns
) -> str:
    """The card.

    Args:
        tasks: pairs by task.
        backward: pairs by the reason why they are rejected backwards; of the reason "", those that are not.
    """
    what, told, by_task, models = provenance(summary, tasks)
    header = front_matter(
        summary["name"],
        {"train": [f"{name}/train-*.parquet" for name in summary["files"]]},
        summary["published"],
        pa.schema([(name, dtype) for name, (dtype, _) in columns.items()]),
    )
    flaws = ", ".join(f"{count} {code(flaw)}" for flaw, count in sorted(backward.items()) if flaw)
    example = _EXAMPLE.format(
        folder=next(iter(summary["files"])),
        backward=backward.get("", 0),
        flaws=f"; the filter rejected others backwards: {flaws}" if flaws else "",
    )
    end = "A score that does not apply to a task is null. `sha256sum -c SHA256SUMS` checks the files."
    audited = audit_section(summary)
    return dataset_card(header, what, told, example, by_task, *audited, models, columns_table(columns), end)
