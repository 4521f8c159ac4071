"""``editpairs audit --against``: captions and pictures that a run shares with evaluation sets.

A model that is trained on what it is evaluated with looks better than it is. Captions are compared word by
word (:func:`stages.words.words_of`), pictures by their perceptual hashes. The sets are read once and only
their captions and hashes stay in memory; the run is read part by part.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.audit.evaluation_set import EvaluationSet, read_set
from pipeline.audit.hash_index import BITS, HashIndex
from pipeline.engine.ledger import count_run, published
from pipeline.engine.publish import published_digest
from pipeline.engine.state import RunState
from pipeline.shown import DataTable
from pipeline.store.audits import MOST_MATCHES, Audit, Match, SetAudit
from pipeline.store.reading import open_parquet
from pipeline.views.rows import done_stages, rows
from stages.pictures.foreign import decode_foreign
from stages.pictures.perceptual_hash import perceptual_hash
from stages.words import words_of

_CAPTIONS = pa.schema([(name, pa.string()) for name in ("id", "input_caption", "output_caption")])
Place = tuple[str, int]
"""A file of a set, and a row in it."""


@dataclass
class Learned:
    """What is kept of a set: its captions and hashes, with their places."""

    of: EvaluationSet
    rows: int = 0
    broken: int = 0
    captions: dict[str, Place] = field(default_factory=dict)
    """The first place of each caption, by its words."""
    hashes: list[int] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    """The places of the hashes."""


def learn(each: EvaluationSet, advance: Callable[[int], None]) -> Learned:
    """Read a set. ``advance`` is called for every row.

    Raises:
        UserError: a file cannot be read.
    """
    learned = Learned(each)
    for row in read_set(each):
        place = row.file, row.number
        for caption in row.captions:
            if key := caption_key(caption):
                learned.captions.setdefault(key, place)
        for picture in row.pictures:
            try:
                learned.hashes.append(perceptual_hash(decode_foreign(picture)))
                learned.places.append(place)
            except ValueError:
                learned.broken += 1
        learned.rows += 1
        advance(1)
    return learned


def caption_key(caption: str) -> str:
    """A caption in comparable form: equal for two captions of the same words."""
    return " ".join(words_of(caption))


def compare(state: RunState, sets: Sequence[Learned]) -> Audit:
    """Compare a run with sets: its planned captions, and the captions and pictures of its published pairs.

    Raises:
        UserError: a file of the run cannot be read.
    """
    state.scan()
    compared = [_Compared(each) for each in sets]
    for row_id, turn, name, caption in _captions(state):
        key = caption_key(caption)
        for each in compared:
            each.see_caption(row_id, turn, name, key)
    for ids, turn, name, hashes in _hashes(state):
        for each in compared:
            each.see_pictures(ids, turn, name, hashes)
    return Audit(
        bits=BITS,
        pairs=published(state, count_run(state)),
        published=published_digest(state),
        sets=[each.result() for each in compared],
    )


def audit_table(audit: Audit) -> DataTable:
    """A table: for each set, what was compared and what is shared."""
    numbers = ("rows", "captions", "shared", "pictures", "shared", "broken", "pairs concerned")
    table = DataTable(box=None, header_style="bold", pad_edge=False)
    for name in ("set", *numbers):
        table.add_column(name, justify="left" if name == "set" else "right")
    for each in audit.sets:
        captions = (str(each.captions), str(each.shared_captions)) if each.caption_columns else ("-", "-")
        pictures = (str(each.pictures), str(each.shared_pictures)) if each.picture_columns else ("-", "-")
        concerned = f"{each.pairs} of {audit.pairs}"
        table.add_row(each.name, str(each.rows), *captions, *pictures, str(each.broken), concerned)
    return table


class _Compared:
    """The comparison with one set."""

    def __init__(self, learned: Learned) -> None:
        self._learned = learned
        self._index = HashIndex(np.array(learned.hashes, np.int64))
        self._captions: set[str] = set()
        self._pictures: set[int] = set()
        self._pairs: set[tuple[str, int]] = set()
        self._matches: list[Match] = []

    def see_caption(self, row_id: str, turn: int, name: str, key: str) -> None:
        if (place := self._learned.captions.get(key)) is not None:
            self._captions.add(key)
            self._add(row_id, turn, name, place)

    def see_pictures(self, ids: Sequence[str], turn: int, name: str, hashes: np.ndarray) -> None:
        for ours, theirs, bits in self._index.similar(hashes).tolist():
            self._pictures.add(theirs)
            self._add(ids[ours], turn, name, self._learned.places[theirs], bits)

    def _add(self, row_id: str, turn: int, name: str, place: Place, bits: int | None = None) -> None:
        if name != "caption":
            self._pairs.add((row_id, turn))
        if len(self._matches) < MOST_MATCHES:
            file, number = place
            self._matches.append(Match(row=row_id, turn=turn, ours=name, file=file, place=number, bits=bits))

    def result(self) -> SetAudit:
        learned = self._learned
        return SetAudit(
            name=learned.of.name,
            files=[file.name for file in learned.of.files],
            rows=learned.rows,
            caption_columns=list(learned.of.captions),
            picture_columns=list(learned.of.pictures),
            captions=len(learned.captions),
            pictures=len(learned.hashes),
            broken=learned.broken,
            shared_captions=len(self._captions),
            shared_pictures=len(self._pictures),
            pairs=len(self._pairs),
            matches=self._matches,
        )


def _captions(state: RunState) -> Iterator[tuple[str, int, str, str]]:
    """Id, turn, name and text of every planned caption and of both captions of every published pair."""
    for part in range(state.plan.parts):
        for row in rows(state, part, {"plan": ["caption"]}):
            yield row["id"], 1, "caption", row["caption"] or ""
    for step in state.steps.values():
        for unit in range(step.unit_count(state.plan.parts)) if step.publishes else ():
            if state.done(step, unit):
                with open_parquet(state.path(step, unit), _CAPTIONS) as file:
                    for batch in file.iter_batches(columns=_CAPTIONS.names):
                        for row in batch.to_pylist():
                            for name in ("input_caption", "output_caption"):
                                yield row["id"], step.turn, name, row[name] or ""


def _hashes(state: RunState) -> Iterator[tuple[list[str], int, str, np.ndarray]]:
    """Ids, turn, name and hashes of the anchors and targets of published pairs, part by part.

    I and Tar of a pair are its anchor and its target, or the other way round in a reverse task.
    """
    names = ["anchor_hash", "target_hash"]
    for turn in sorted({step.turn for step in state.steps.values()}):
        for part in range(state.plan.parts):
            if "select" not in done_stages(state, part, turn):
                continue
            reads = {"plan": (), "filter": names, "select": ()}
            kept = [
                row
                for row in rows(state, part, reads, turn=turn)
                if row.get("stage") == "select" and row["status"] == "kept"
            ]
            for name in names if kept else ():
                hashes = np.array([row[name] for row in kept], np.int64)
                yield [row["id"] for row in kept], turn, name.removesuffix("_hash"), hashes
