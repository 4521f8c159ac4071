"""``audit.json``: what a run shares with evaluation sets, counted by ``editpairs audit``.

Cards state it. It records the published files that were compared, so that an audit of an earlier state of the
run is told apart.
"""

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UserError
from pipeline.store.location import Location, named
from pipeline.store.new_file import write_text

MOST_MATCHES = 1000
"""Most matches listed of a set. All are counted."""


class Match(BaseModel):
    """A caption or a picture of the run that a set has too."""

    model_config = ConfigDict(strict=True, extra="forbid")

    row: str
    """Id of a row of the run."""
    turn: int
    ours: str
    """``caption`` (planned), ``input_caption``, ``output_caption``, ``anchor`` or ``target``."""
    file: str
    """The set's file, and the place of its row in it, counted from 0."""
    place: int
    bits: int | None = None
    """Bits in which the hashes of two pictures differ."""


class SetAudit(BaseModel):
    """The result for one evaluation set. ``captions`` and ``pictures`` are those compared."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    files: list[str]
    rows: int
    caption_columns: list[str]
    picture_columns: list[str]
    captions: int
    """Different captions, after normalising."""
    pictures: int
    broken: int
    """Pictures that are missing or cannot be decoded."""
    shared_captions: int
    shared_pictures: int
    pairs: int
    """Published pairs with a shared caption or picture."""
    matches: list[Match]


class Audit(BaseModel):
    """One run of ``editpairs audit``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    version: int = 1
    bits: int
    """Most bits of 64 in which the hashes of equal pictures differ."""
    pairs: int
    """Published pairs."""
    published: str
    """Digest of the published files."""
    sets: list[SetAudit]


def read_audit(path: Location) -> Audit | None:
    """The audit of a run; None if there is none.

    Raises:
        OSError: the file cannot be read.
        UserError: it is damaged.
    """
    try:
        with named(path):
            content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return Audit.model_validate_json(content)
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged, or another version wrote it: delete it, or give editpairs audit again"
        ) from error


def write_audit(path: Location, audit: Audit) -> None:
    write_text(path, audit.model_dump_json(indent=1) + "\n")
