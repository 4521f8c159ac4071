"""One file a part of a stage: its footer says what it holds and what it was made from.

So there is no second marker. A footer has the fingerprint of the stage that wrote the file, the digests of
what it read, and its counts; :mod:`pipeline.store.sealed` adds where the file belongs and its checksums.
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.store.counts import Counts, pack, unpack
from pipeline.store.location import Location
from pipeline.store.sealed import DamagedFileError, Place, read_metadata

STATUSES = ("kept", "rejected", "failed")
"""What can become of a row in a stage; one that has no record yet is pending."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What a committed file says about itself."""

    fingerprint: str
    digest: str
    inputs: bytes
    """``digest_of_inputs`` of what it read."""
    packed: bytes
    """Its counts, as ``pipeline.store.counts`` packs them."""

    @property
    def counts(self) -> Counts:
        return unpack([self.packed])

    def total(self, status: str) -> int:
        return sum(n for (_, s, _), n in self.counts.items() if s == status)


def read_footer(path: Location, place: Place) -> Footer | None:
    """The footer of a part; None if the file is missing.

    Raises:
        OSError: it cannot be read.
        DamagedFileError: it is cut short, changed, not a part, or of another place.
    """
    try:
        content, _ = read_metadata(path, place)
    except FileNotFoundError:
        return None
    try:
        counts = [((str(task), status, str(reason)), n) for task, status, reason, n in content["counts"]]
        if any(status not in STATUSES or n < 0 for (_, status, _), n in counts):
            raise ValueError("a count is of no status, or negative")
        return Footer(
            fingerprint=sys.intern(content["fingerprint"]),
            digest=content["digest"],
            inputs=digest_of_inputs(content["inputs"]),
            packed=pack(counts),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DamagedFileError(path, "its footer is not one of a part") from error


def digest_of_inputs(inputs: Mapping[str, str]) -> bytes:
    """One digest for ``stage/part`` -> digest of each upstream part that a file read."""
    lines = "\n".join(sorted(map("\t".join, inputs.items())))
    return hashlib.blake2b(lines.encode(), digest_size=16).digest()


def footer_content(
    fingerprint: str, inputs: Mapping[str, str], counts: Counts, smallest_batch: int | None = None
) -> dict[str, Any]:
    """What a part's footer says, as ``read_footer`` expects it.

    ``smallest_batch`` is noted where batches had to be smaller than the manifest's, for want of memory.
    """
    return {
        **({} if smallest_batch is None else {"smallest_batch": smallest_batch}),
        "fingerprint": fingerprint,
        "inputs": dict(inputs),
        "counts": [[*key, n] for key, n in sorted(counts.items())],
    }
