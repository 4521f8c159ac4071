"""One file per part of a stage. The footer records the content and the inputs.

There is no separate marker file. A footer holds the fingerprint of the stage that wrote the file, the digests
of its inputs, and the row counts. :mod:`pipeline.store.sealed` adds the file's place and checksums.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.store.counts import Counts, pack, unpack
from pipeline.store.location import Location
from pipeline.store.sealed import DamagedFileError, Place, read_metadata

STATUSES = ("kept", "rejected", "failed")
"""Possible results of a row in a stage. A row without a result is pending."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Columns that a file no longer has, because ``editpairs prune`` dropped them."""

    columns: tuple[str, ...]
    size: int
    """Bytes that they took in the file."""


@dataclass(frozen=True, slots=True)
class Footer:
    """The record in a committed file's footer."""

    fingerprint: str
    digest: str
    """Of the content as the stage wrote it, also in a pruned file: later files have recorded this one."""
    inputs: bytes
    """``digest_of_inputs`` of the files that it was made from."""
    packed: bytes
    """Row counts, packed by ``pipeline.store.counts``."""
    pruned: Pruned | None = None
    """None for a whole file."""

    @property
    def counts(self) -> Counts:
        return unpack([self.packed])

    def total(self, status: str, without: Sequence[str] = ()) -> int:
        """Rows of a status, but for some reasons."""
        return sum(n for (_, s, reason), n in self.counts.items() if s == status and reason not in without)


def read_footer(path: Location, place: Place) -> Footer | None:
    """Read the footer of a part; None if the file is missing.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: the file is truncated, changed, not a part, or belongs to another place.
    """
    try:
        content, _ = read_metadata(path, place)
    except FileNotFoundError:
        return None
    try:
        counts = [((str(task), status, str(reason)), n) for task, status, reason, n in content["counts"]]
        if any(status not in STATUSES or n < 0 for (_, status, _), n in counts):
            raise ValueError("a count is of no status, or negative")
        dropped = content.get("pruned")
        return Footer(
            fingerprint=sys.intern(content["fingerprint"]),
            digest=str((content if dropped is None else dropped)["digest"]),
            inputs=digest_of_inputs(content["inputs"]),
            packed=pack(counts),
            pruned=None if dropped is None else Pruned(tuple(dropped["columns"]), int(dropped["size"])),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DamagedFileError(path, "its footer is not one of a part") from error


def digest_of_inputs(inputs: Mapping[str, str]) -> bytes:
    """Combine the digests of all input parts (``stage/part`` -> digest) into one."""
    lines = "\n".join(sorted(map("\t".join, inputs.items())))
    return hashlib.blake2b(lines.encode(), digest_size=16).digest()


def pruned_content(content: Mapping[str, Any], pruned: Pruned) -> dict[str, Any]:
    """The footer of a pruned file, from the footer of the whole one."""
    whole = {key: value for key, value in content.items() if key not in ("run", "stage", "unit", "seal")}
    return {
        **whole,
        "pruned": {"digest": content["digest"], "columns": list(pruned.columns), "size": pruned.size},
    }


def footer_content(
    fingerprint: str, inputs: Mapping[str, str], counts: Counts, smallest_batch: int | None = None
) -> dict[str, Any]:
    """The footer of a part in the form that ``read_footer`` expects.

    ``smallest_batch`` is set if batches had to be smaller than the manifest's because memory ran out.
    """
    return {
        **({} if smallest_batch is None else {"smallest_batch": smallest_batch}),
        "fingerprint": fingerprint,
        "inputs": dict(inputs),
        "counts": [[*key, n] for key, n in sorted(counts.items())],
    }
