"""What a watched worker leaves behind about the unit it runs: its heartbeat, and a witness if it ends."""

import json
from dataclasses import asdict, dataclass

from pipeline.store.folder import RunFolder
from pipeline.store.location import Location, named
from pipeline.store.new_file import temporary


@dataclass(frozen=True)
class Note:
    """How far a process is with a unit."""

    finished: int
    """Calls of the stage so far: batches, or rows where each runs alone."""
    row: str | None = None
    """The row that runs alone right now. None: if the process ends now, that is no row's fault."""


class Notes:
    """The notes of a stage's units, one file each. Removed like any temporary file of a run."""

    def __init__(self, folder: RunFolder, stage: str) -> None:
        self._folder = folder.root / stage

    def path(self, unit: int) -> Location:
        return temporary(self._folder / f"{unit:05d}", "row")

    def leave(self, unit: int, note: Note) -> None:
        self.path(unit).write_text(json.dumps(asdict(note)), encoding="utf-8")

    def read(self, unit: int) -> Note | None:
        """None: none is there, or its process ended while it wrote."""
        path = self.path(unit)
        try:
            with named(path):
                return Note(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remove(self, unit: int) -> None:
        self.path(unit).unlink(missing_ok=True)
