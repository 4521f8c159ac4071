"""The stages that begin a later round: they give each row another seed."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from stages.base import PICTURES, Stage, kept, to_table
from stages.seeds import derive_seed
from stages.source.photographs import Photographs
from stages.source.stage import Source, SourceConfig

_BEGUN = [pa.field("seed", pa.int64()), pa.field("round", pa.int16())]
"""``seed`` stands for the plan's in this round; ``round`` counts from 1."""


def begun(rows: pa.Table) -> tuple[list[int], list[int]]:
    """Seeds and number of the round that rows begin, from those of the round before (``round`` is missing
    after the first)."""
    before = rows["round"].to_pylist() if "round" in rows.column_names else [1] * rows.num_rows
    rounds = [number + 1 for number in before]
    seeds = zip(rows["seed"].to_pylist(), rounds, strict=True)
    return [derive_seed(seed, "round", number) for seed, number in seeds], rounds


class SourceAgain(Source):
    """Draws the source picture of each row from another seed."""

    version: ClassVar[int] = Source.version
    schema: ClassVar[pa.Schema] = pa.schema([*Source.schema, *_BEGUN])

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        return PhotographsAgain if PICTURES in stages else cls

    def __call__(self, rows: pa.Table) -> pa.Table:
        seeds, rounds = begun(rows)
        place = rows.column_names.index("seed")
        drawn = super().__call__(rows.set_column(place, "seed", pa.array(seeds, pa.int64())))
        for field, values in zip(_BEGUN, (seeds, rounds), strict=True):
            place = drawn.column_names.index(field.name)
            drawn = drawn.set_column(place, field, pa.array(values, field.type))
        return drawn


class PhotographsAgain(SourceAgain, Photographs):
    """Gives each row its own picture again; the seed draws other noise and other strengths."""


class TurnAgain(Stage[SourceConfig]):
    """Begins a round of a later turn.

    The turn's picture stays, since it is what the turn before published. The seed draws other strengths where
    a candidate has ranges.
    """

    version: ClassVar[int] = 1
    light: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {"plan": ["seed"]}
    task_keys: ClassVar[Sequence[str]] = ()
    schema: ClassVar[pa.Schema] = pa.schema(_BEGUN)
    Config = SourceConfig

    def __call__(self, rows: pa.Table) -> pa.Table:
        seeds, rounds = begun(rows)
        made = [kept(seed=seed, round=number) for seed, number in zip(seeds, rounds, strict=True)]
        return to_table(rows["id"].to_pylist(), made, self.schema)
