"""Answers of a model that were paid for, kept beside the run by a digest of all that determines them.

One file per step and part, in sealed lines: what a killed process had received stays, and a damaged line is
an answer that was never received. On a disk each answer is written when it comes; in an object store, where
every write replaces the file, ``HELD`` at once. A part belongs to one worker; should two write its file at
once, on a disk both find their lines again, and in a store one's are lost.
"""

import json

from pipeline.errors import input_output_error
from pipeline.store.location import Location, is_local, reached
from pipeline.store.sealed_lines import append_lines, sealed_line, sealed_lines

HELD = 32
"""Answers that a killed process may lose in an object store."""


class KeptAnswers:
    """The answers of one file. It is read at the first question, and made by the first answer.

    Raises:
        UserError: the file cannot be read or written. It says so rather than to pay again.
    """

    def __init__(self, path: Location) -> None:
        self._path = path
        self._known: dict[str, str] | None = None
        self._held: list[bytes] = []

    def get(self, key: str) -> str | None:
        """The answer with this key, or None."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(key)

    def put(self, key: str, answer: str) -> None:
        """Keep an answer."""
        if self._known is not None:
            self._known[key] = answer
        self._held.append(sealed_line({"key": key, "answer": answer}))
        if is_local(self._path) or len(self._held) >= HELD:
            self.write()

    def write(self) -> None:
        """Write the answers that are held."""
        if not self._held:
            return
        try:
            with reached(self._path):
                if is_local(self._path):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                append_lines(self._path, b"".join(self._held))
        except OSError as error:
            raise input_output_error(error, self._path) from error
        self._held.clear()

    def _read(self) -> dict[str, str]:
        try:
            with reached(self._path):
                lines = [json.loads(line) for _, line, whole in sealed_lines(self._path) if whole]
        except OSError as error:
            raise input_output_error(error, self._path) from error
        return {line["key"]: line["answer"] for line in lines}
