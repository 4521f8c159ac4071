"""A verdict: what one person says about one candidate of a row."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, NamedTuple

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Answer = Literal["right", "wrong", "unsure"]
REASONS: Mapping[str, str] = {
    "not_done": "the instruction is not followed",
    "something_else": "something else was changed inside the edit",
    "outside": "something changed that should stay",
    "broken": "the target is broken: artefacts, a bad seam",
    "input": "the input does not show its caption",
    "instruction": "the instruction makes no sense here",
}
"""Reasons that the page offers for ``wrong``. A file of verdicts can give others."""
MOST_CHARACTERS = 200
"""Longest reason and longest name of a person."""


class Key(NamedTuple):
    """One candidate of a row in a turn of a session."""

    id: str
    turn: int
    candidate: int


def _in_utc(when: datetime) -> datetime:
    return when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Verdict(BaseModel):
    """One person's verdict. A later one of the same person about the same candidate replaces it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=r"^[0-9a-f]{32}$", description="the row")
    turn: int = Field(1, ge=1, le=9, description="turn of a session")
    candidate: int = Field(ge=0, le=10_000, description="index of the candidate in the row")
    verdict: Answer
    reason: str = Field("", max_length=MOST_CHARACTERS)
    who: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    when: Annotated[datetime, AfterValidator(_in_utc)] = Field(default_factory=_now)
    anchor_hash: int | None = Field(None, description="perceptual hash of the anchor that was judged")
    candidate_hash: int | None = Field(None, description="the same of the candidate")
    stratum: str = Field("", description="the stratum that the row was drawn from; empty if from a file")
    stratum_rows: int | None = Field(None, ge=1, description="number of rows in the stratum")
    design: str = Field("", description="digest of all strata; equal for rows of one draw")

    @property
    def key(self) -> Key:
        return Key(self.id, self.turn, self.candidate)


SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("candidate", pa.int32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("who", pa.string(), nullable=False),
        pa.field("when", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("anchor_hash", pa.int64()),
        pa.field("candidate_hash", pa.int64()),
        pa.field("stratum", pa.string(), nullable=False),
        pa.field("stratum_rows", pa.int64()),
        pa.field("design", pa.string(), nullable=False),
    ]
)
"""The columns of ``verdicts.parquet``, which are the fields of :class:`Verdict`."""


def to_table(verdicts: Iterable[Verdict]) -> pa.Table:
    records: list[dict[str, Any]] = [verdict.model_dump() for verdict in verdicts]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def agreed(verdicts: Iterable[Verdict]) -> dict[Key, bool]:
    """Whether each candidate is right, by the majority of its people; without ``unsure`` and ties."""
    votes: dict[Key, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        votes[verdict.key][verdict.verdict] += 1
    return {
        key: counts["right"] > counts["wrong"]
        for key, counts in votes.items()
        if counts["right"] != counts["wrong"]
    }
