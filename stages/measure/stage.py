"""The measure stage: further metrics of each candidate, each turned on by a key of the manifest."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from stages.base import Decision, Stage, StageConfig, failed, kept, to_table
from stages.finite import NotFiniteError
from stages.measure.config import MeasureConfig
from stages.measure.instrument import Instrument
from stages.score.evidence import Row
from stages.score.metric import Scores
from stages.score.metrics import FURTHER, SCORE_COLUMNS
from stages.tasks import Tasks


class Measure(Stage[MeasureConfig]):
    """Computes the metrics that the section ``measure`` turns on, for the tasks that they suit.

    The other metrics are null, and so are those that cannot be measured, such as of a phrase with a word that
    the model does not know. It decides nothing; a row fails if a metric is not finite. Each model encodes
    each picture and each phrase once.
    """

    version: ClassVar[int] = 1
    needs_section: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task"],
        "instruct": ["caption", "output_caption", "edited_object", "original_object", "surroundings"],
        "mask": ["precise_mask", "smooth_mask", "soft_mask", "boxes"],
        "edit": ["anchor", "candidates"],
    }
    task_keys: ClassVar[Sequence[str]] = ("method", "region", "direction", "ground", "fields")
    schema: ClassVar[pa.Schema] = pa.schema(
        [(SCORE_COLUMNS["measure"], pa.list_(pa.struct([(metric, pa.float32()) for metric in FURTHER])))]
    )
    Config: ClassVar[type[StageConfig]] = MeasureConfig

    def __init__(self, config: MeasureConfig, tasks: Tasks, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        self.instruments = list(_load(config))

    @classmethod
    def problems(cls, config: MeasureConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.clip_files import clip_problems
        from stages.models.grounding.folder import grounding_problems
        from stages.models.lpips_files import check_backbone
        from stages.models.weight_files import check_preprocessor, of_transformers, problems_of

        if config.counts:
            yield from grounding_problems(config.grounding)
        if config.region_clip:
            yield from clip_problems(config.clip)
        if config.lpips is not None:
            yield from problems_of("measure.lpips", config.lpips, check_backbone)
        if config.dino is not None:
            check = of_transformers("a DINO model", ("Dino",), check_preprocessor)
            yield from problems_of("measure.dino", config.dino, check)

    def __call__(self, rows: pa.Table) -> pa.Table:
        work = [Row(self.tasks[record["task"]], record) for record in rows.to_pylist()]
        found = [[dict.fromkeys(FURTHER) for _ in row.pairs] for row in work]
        for instrument in self.instruments:
            for of_row, values in zip(found, instrument.measure(work, self.config.batch), strict=True):
                for scores, measured in zip(of_row, values, strict=True):
                    scores.update(measured)
        return to_table(rows["id"].to_pylist(), [_decide(scores) for scores in found], self.schema)


def _decide(scores: Sequence[Scores]) -> Decision:
    for place, values in enumerate(scores):
        for metric, value in values.items():
            if value is not None and not math.isfinite(np.float32(value)):
                return failed(NotFiniteError("measure", f"{metric} of candidate {place}"))
    return kept(**{SCORE_COLUMNS["measure"]: list(scores)})


def _load(config: MeasureConfig) -> Iterator[Instrument]:
    """The instruments that a section turns on."""
    if config.seam:
        from stages.measure.seams import Seams

        yield Seams()
    if config.counts:
        from stages.measure.counts import Counts
        from stages.models.grounding import load_detector

        yield Counts(load_detector(config.grounding))
    if config.region_clip:
        from stages.measure.regions import Regions
        from stages.models.clip import Clip

        yield Regions(Clip.load(config.clip))
    if config.lpips is not None:
        from stages.measure.outside import LpipsOutside
        from stages.models.lpips import Lpips

        yield LpipsOutside(Lpips(config.lpips, "measure.lpips.model"))
    if config.dino is not None:
        from stages.measure.outside import DinoOutside
        from stages.models.dino import Dino

        yield DinoOutside(Dino(config.dino, "measure.dino.model"))
