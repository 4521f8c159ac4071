"""The rows of a finished run with columns from several stages, for evaluation and studies."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.store.folder import RunFolder
from pipeline.store.plan import read_plan
from pipeline.store.rows import kept_ids, read_rows


def rows_of(run: Path, kept_by: str, reads: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield the rows that a stage kept, in plan order.

    Args:
        run: the run folder.
        kept_by: the stage.
        reads: the columns to read, by the stage that wrote them; ``plan`` is allowed too.

    Raises:
        FileNotFoundError: there is no run, or the stage has not finished it.
    """
    folder = RunFolder(run)
    plan = read_plan(folder.plan)
    if plan is None:
        raise FileNotFoundError(f"there is no run at {run}")
    for part in range(plan.parts):
        files = {stage: folder.part(stage, part) for stage in reads if stage != "plan"}
        ids = kept_ids(folder.part(kept_by, part))
        for table in read_rows(folder.plan, part, files, reads, {}, ids, 64):
            yield from table.to_pylist()
