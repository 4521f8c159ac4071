"""The rows that can be reviewed: rows with candidates about which the filter has decided."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.state import RunState
from pipeline.store.plan import origins, read_part
from pipeline.views.outcomes import sample_parts
from pipeline.views.rows import done_stages, rows
from stages.score.metric import Scores
from stages.score.metrics import score_columns, scores_of

_HASHES = ["anchor_hash", "candidate_hashes"]


@dataclass(frozen=True, eq=False)
class Reviewable:
    """A row with the filter's decision. ``choice`` is the chosen candidate; None for a rejected row."""

    id: str
    turn: int
    part: int
    task: str
    caption: str
    """The planned caption, or the digest of a picture without one (:func:`pipeline.store.plan.origins`).

    It is equal in all turns. Rows of one caption are not independent."""
    scores: Sequence[Scores]
    """Scores of each candidate."""
    choice: int | None
    anchor_hash: int
    candidate_hashes: Sequence[int]

    @property
    def kept(self) -> bool:
        return self.choice is not None


def reviewable(state: RunState, seed: int = 0, also: Collection[str] = ()) -> list[Reviewable]:
    """The rows that can be reviewed; of a large run, the rows of some parts (``sample_parts``).

    Args:
        state: the run.
        seed: draws the parts.
        also: ids of rows whose parts are wanted besides, such as rows with verdicts.

    Raises:
        UserError: a file of the run cannot be read.
    """
    state.scan()
    turns = sorted({step.turn for step in state.steps.values()})
    return [
        row
        for part in sorted({*sample_parts(state, 0, seed), *_parts_of(state, also)})
        for captions in [origins(state.folder.plan, part)]
        for turn in turns
        for row in _decided(state, part, turn, captions)
    ]


def _parts_of(state: RunState, ids: Collection[str]) -> Iterator[int]:
    wanted = pa.array(sorted(ids), pa.string())
    for part in range(state.plan.parts) if len(wanted) else ():
        if pc.any(pc.is_in(read_part(state.folder.plan, part, ["id"])["id"], wanted)).as_py():
            yield part


def _decided(state: RunState, part: int, turn: int, captions: Mapping[str, str]) -> Iterator[Reviewable]:
    done = done_stages(state, part, turn)
    if "filter" not in done:
        return
    scores = score_columns(done)
    reads = {"plan": ["task"], **scores, "score": [*scores["score"], *_HASHES], "filter": ["choice"]}
    for row in rows(state, part, reads, turn=turn):
        if row.get("stage") == "filter" and row["status"] in ("kept", "rejected"):
            yield Reviewable(
                id=row["id"],
                turn=turn,
                part=part,
                task=row["task"],
                caption=captions[row["id"]],
                scores=scores_of(row),
                choice=row["choice"],
                anchor_hash=row["anchor_hash"],
                candidate_hashes=row["candidate_hashes"],
            )
