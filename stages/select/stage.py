"""The select stage: decisions that need the whole run, on near duplicates and task quotas."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.base import Stage, StageConfig, kept, rejected, to_table
from stages.select.balance import quotas
from stages.select.near_duplicates import MOST_BITS, near_duplicates
from stages.tasks import Tasks


class SelectConfig(StageConfig):
    """The manifest's section ``select``."""

    near_duplicate_bits: int | None = Field(
        4,
        ge=0,
        le=MOST_BITS,
        description="reject a pair whose two perceptual hashes differ from an earlier pair's in at most so "
        "many of 128 bits; None: keep all",
    )
    balance: Mapping[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="by task: its largest share of the published pairs"
    )


class Select(Stage[SelectConfig]):
    """Rejects ``near_duplicate`` pairs, then rows that are ``over_quota``.

    Of pairs that look alike, the first in plan order stays. If a task exceeds its share, its rows with the
    lowest rank are rejected; ties are decided by id.
    """

    version: ClassVar[int] = 1
    light: ClassVar[bool] = True
    wide: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "task_check": ["checked_task"],
        "filter": ["rank", "anchor_hash", "target_hash"],
    }
    task_keys: ClassVar[Sequence[str]] = ()
    schema: ClassVar[pa.Schema] = pa.schema([])
    Config: ClassVar[type[StageConfig]] = SelectConfig

    def __init__(self, config: SelectConfig, tasks: Tasks, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        tasks.check_known(config.balance, "select.balance")
        if set(tasks) <= set(config.balance) and sum(config.balance[name] for name in tasks) < 1 - 1e-9:
            raise ValueError(
                "select.balance: the shares of the run's tasks sum to less than 1, so no pair could stay; "
                "raise one, or leave a task out"
            )
        self.reasons: dict[bytes, str] = {}

    def survey(self, tables: Iterable[pa.Table]) -> None:
        """Decide about all rows of the run, given in plan order."""
        ids, tasks, ranks, hashes = [], [], [], []
        names: dict[str, int] = {}
        for table in tables:
            ids.append(np.array([bytes.fromhex(i) for i in table["id"].to_pylist()], "S16"))
            codes = (names.setdefault(task, len(names)) for task in table["checked_task"].to_pylist())
            tasks.append(np.fromiter(codes, np.int16, table.num_rows))
            ranks.append(table["rank"].to_numpy(zero_copy_only=False).astype(np.float32))
            both = [table[name].to_numpy().astype(">i8") for name in ("anchor_hash", "target_hash")]
            hashes.append(np.stack(both, 1).view(np.uint8))
        if not ids:
            return
        joined = [np.concatenate(column) for column in (ids, tasks, ranks, hashes)]
        self._decide(list(names), *joined)

    def _decide(
        self, names: list[str], ids: np.ndarray, tasks: np.ndarray, ranks: np.ndarray, hashes: np.ndarray
    ) -> None:
        bits = self.config.near_duplicate_bits
        alike = np.zeros(len(ids), bool) if bits is None else near_duplicates(hashes, bits)
        self.reasons = dict.fromkeys(ids[alike].tolist(), "near_duplicate")
        stay = np.flatnonzero(~alike)
        counts = {name: int((tasks[stay] == code).sum()) for code, name in enumerate(names)}
        for code, quota in enumerate(quotas(counts, self.config.balance).values()):
            rows = stay[tasks[stay] == code]
            best_first = rows[np.lexsort((ids[rows], -ranks[rows]))]
            self.reasons |= dict.fromkeys(ids[best_first[quota:]].tolist(), "over_quota")

    def __call__(self, rows: pa.Table) -> pa.Table:
        ids = rows["id"].to_pylist()
        reasons = [self.reasons.get(bytes.fromhex(row_id).rstrip(b"\0")) for row_id in ids]
        return to_table(ids, [rejected(reason) if reason else kept() for reason in reasons], self.schema)
