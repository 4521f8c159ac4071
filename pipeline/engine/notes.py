"""Notes of a watched worker: a heartbeat for the unit it runs, and a record of the row that runs alone."""

import json
from dataclasses import asdict, dataclass

from pipeline.store.files import put, remove
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location, named
from pipeline.store.new_file import temporary


@dataclass(frozen=True)
class Note:
    """The progress of a process in a unit."""

    finished: int
    """Number of finished calls of the stage: batches, or single rows where each row runs alone."""
    row: str | None = None
    """The row that runs alone now. None: if the process ends now, no row is to blame."""


class Notes:
    """The notes of a stage's units, one temporary file per unit."""

    def __init__(self, folder: RunFolder, stage: str) -> None:
        self._folder = folder.root / stage

    def path(self, unit: int) -> Location:
        return temporary(self._folder / f"{unit:05d}", "row")

    def leave(self, unit: int, note: Note) -> None:
        put(self.path(unit), json.dumps(asdict(note)).encode())

    def read(self, unit: int) -> Note | None:
        """Read a note. None if there is none, or if its process ended while writing it."""
        path = self.path(unit)
        try:
            with named(path):
                return Note(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remove(self, unit: int) -> None:
        remove(self.path(unit))
