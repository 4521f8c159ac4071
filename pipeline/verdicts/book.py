"""``verdicts.parquet`` beside a run: reading it, and changing it without ever losing a verdict.

A change takes a lock, reads the file, and replaces it atomically. It returns once the new file is on the
disk, so a verdict whose change has returned survives any end of the process and a power cut. Several
processes can review one run at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.store.folder import RunFolder
from pipeline.store.location import Location
from pipeline.store.lock import held_in_turn
from pipeline.store.sealed import DamagedFileError, Place, check_digest, read_table
from pipeline.store.sealed_writer import SealedWriter
from pipeline.verdicts.verdict import SCHEMA, Key, Verdict, to_table

STAGE = "verdicts"
_TRIES = 3

Verdicts = dict[tuple[Key, str], Verdict]
"""Verdicts by candidate and person, in the order in which they were first given."""


@dataclass(frozen=True)
class Book:
    """The verdicts of a run."""

    folder: RunFolder
    plan_digest: str

    @property
    def path(self) -> Location:
        return self.folder.verdicts

    @property
    def place(self) -> Place:
        """The place that the file names, so that verdicts about another run are noticed."""
        return Place(self.plan_digest, STAGE, 0)

    def read(self) -> list[Verdict]:
        """All verdicts; none if the file does not exist.

        Raises:
            OSError: the file cannot be read.
            UserError: the file is damaged or of another run.
        """
        return list(self._read().values())

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Add verdicts. Each replaces an earlier one of the same person about the same candidate.

        Raises:
            OSError, UserError: the file cannot be read or written; then nothing was added.
        """
        new = list(verdicts)

        def change(known: Verdicts) -> None:
            for verdict in new:
                known[verdict.key, verdict.who] = verdict

        self._change(change)

    def take_back(self, key: Key, who: str) -> None:
        """Remove one person's verdict about a candidate; errors as for :meth:`add`."""
        self._change(lambda known: known.pop((key, who), None))

    def _change(self, change: Callable[[Verdicts], object]) -> None:
        with held_in_turn(self.folder.root / ".verdicts"):
            known = self._read()
            change(known)
            for left in reversed(range(_TRIES)):
                try:
                    return self._write(known.values())
                except FileNotFoundError:
                    # A run that starts removes temporary files from its folder, perhaps this one.
                    if not left:
                        raise

    def _write(self, verdicts: Iterable[Verdict]) -> None:
        table = to_table(verdicts)
        with SealedWriter(self.path, SCHEMA) as writer:
            writer.write(table)
            writer.commit(self.place, {"rows": table.num_rows})

    def _read(self) -> Verdicts:
        try:
            check_digest(self.path, self.place)
            table = read_table(self.path, SCHEMA.names)
            verdicts = [Verdict.model_validate(record) for record in table.to_pylist()]
        except FileNotFoundError:
            return {}
        except (DamagedFileError, pa.ArrowInvalid, ValueError) as error:
            why = error.why if isinstance(error, DamagedFileError) else "it has other columns or values"
            raise UserError(
                f"{self.path} cannot be believed: {why}. It holds verdicts of people: put a copy back, or "
                "move it away and begin anew"
            ) from error
        return {(verdict.key, verdict.who): verdict for verdict in verdicts}
