"""Adding a learned task to an editor's table, in its folder."""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from editor.model.loading import TASKS_FOLDER
from editor.model.task_table import TaskTable
from pipeline.errors import UserError
from stages.tasks import MOST_INDEX


def free_index(table: TaskTable, name: str, reserved: Mapping[str, int], wanted: int | None) -> int:
    """The new task's index (TI).

    It is the wanted one; or that of the task file of this name, which the editor was not trained on; or else
    the first above all that are used.

    Args:
        reserved: indices of task files by name, which pairs can have.

    Raises:
        UserError: the index is used, or none is left.
    """
    used = {*table.indices, *(index for task, index in reserved.items() if task != name)}
    index = reserved.get(name, max(used, default=-1) + 1) if wanted is None else wanted
    if index in used:
        raise UserError(f"--index {index}: another task has this index; used: {sorted(used)}")
    if index > MOST_INDEX:
        raise UserError(f"no index is left: they end at {MOST_INDEX}; name a free one with --index")
    return index


def replace_table(editor: Path, table: TaskTable) -> None:
    """Put a table in the place of an editor's table. All other files stay as they are.

    The new table is written beside the old one and then takes its place. A kill between the two renames
    leaves the old table in ``tasks.<hex>.old``.
    """
    mark = secrets.token_hex(4)
    target, new, old = (editor / f"{TASKS_FOLDER}{end}" for end in ("", f".{mark}.new", f".{mark}.old"))
    try:
        table.save_pretrained(new)
        for file in new.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        target.rename(old)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old)
