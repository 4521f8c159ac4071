"""The score stage: one struct of metrics per candidate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.base import Decision, Stage, StageConfig, Weights, failed, kept, to_table
from stages.finite import NotFiniteError
from stages.models.config import ClipConfig, ProbeWeights
from stages.models.grounding import GroundingConfig, load_detector
from stages.score.evidence import Evidence, Row, Seen
from stages.score.metrics import MEASURED, check_metrics, metrics_of
from stages.score.optional import OptionalModels
from stages.tasks import Tasks

if TYPE_CHECKING:
    from stages.models.grounding.detector import Detections


class ScoreConfig(StageConfig):
    """The manifest's section ``score``. ``batch`` is also the batch size of every model."""

    clip: ClipConfig
    grounding: GroundingConfig
    dino: Weights | None = Field(None, description="a DINOv2 model of transformers; None: the metric is null")
    depth: Weights | None = Field(None, description="a depth model of transformers; None: the metric is null")
    aesthetic: ProbeWeights | None = Field(None, description="a linear probe of clip.model's embeddings")
    nsfw: ProbeWeights | None = Field(None, description="the same, for unsafe pictures")
    ocr: bool = Field(False, description="read written text, for the task text (editpairs[ocr])")


class Score(Stage[ScoreConfig]):
    """Computes the metrics that each task lists; the others are null. It decides nothing.

    A row fails if a metric is not finite. A metric is null if it cannot be measured: CLIP's for a caption, or
    the detector's for a phrase, with a word that the tokenizer does not know. Each picture and each caption
    is encoded once.
    """

    version: ClassVar[int] = 8
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task"],
        "instruct": ["caption", "instruction", "output_caption", "edited_object", "original_object"],
        "mask": ["precise_mask", "boxes"],
        "edit": ["anchor", "candidates"],
    }
    task_keys: ClassVar[Sequence[str]] = ("metrics", "region", "direction", "fields")
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("scores", pa.list_(pa.struct([(metric, pa.float32()) for metric in MEASURED]))),
            ("anchor_hash", pa.int64()),
            ("candidate_hashes", pa.list_(pa.int64())),
        ]
    )
    Config: ClassVar[type[StageConfig]] = ScoreConfig

    def __init__(self, config: ScoreConfig, tasks: Tasks, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        check_metrics(tasks)
        from stages.models.clip import Clip

        self.clip = Clip.load(config.clip, dtype=config.clip.dtype)
        self.detector = load_detector(config.grounding) if _detects(tasks) else None
        self.optional = OptionalModels(config, self.clip.width)

    @classmethod
    def problems(cls, config: ScoreConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.clip_files import clip_problems
        from stages.models.grounding.folder import grounding_problems
        from stages.score.optional import optional_problems

        try:
            check_metrics(tasks)
        except ValueError as error:
            yield str(error)
        yield from clip_problems(config.clip)
        if _detects(tasks):
            yield from grounding_problems(config.grounding)
        yield from optional_problems(config)

    def __call__(self, rows: pa.Table) -> pa.Table:
        work = [Row(self.tasks[record["task"]], record) for record in rows.to_pylist()]
        texts, pictures, found = self._encode_texts(work), self._encode_images(work), self._detect(work)
        decisions = []
        for row, embeddings, detections in zip(work, pictures, found, strict=True):
            try:
                seen = Seen(embeddings, texts, detections, **self.optional.look(row, embeddings))
            except NotFiniteError as error:
                decisions.append(failed(error))
                continue
            scores = [_scores(Evidence(row, seen, place)) for place in range(len(row.pairs))]
            decisions.append(_decide(row, scores))
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _encode_texts(self, work: list[Row]) -> dict[str, np.ndarray]:
        """Embeddings by caption, for captions in which CLIP knows every word."""
        pairs = [pair for row in work for pair in row.pairs]
        captions = [c for pair in pairs for c in (pair.input_caption, pair.output_caption)]
        captions += [caption for row in work for caption in row.backward_captions]
        texts = list(dict.fromkeys(captions))
        encoded = zip(texts, self.clip.encode_texts(texts, self.config.batch), strict=True)
        return {text: features for text, features in encoded if self.clip.knows(text)}

    def _encode_images(self, work: list[Row]) -> list[np.ndarray]:
        """Embeddings of each row's pictures, [images,d]."""
        images = [image for row in work for image in row.images]
        features = self.clip.encode_images(images, self.config.batch)
        return np.split(features, np.cumsum([len(row.images) for row in work])[:-1])

    def _detect(self, work: list[Row]) -> list[dict[tuple[str, int], "Detections"]]:
        """For each row the detections, by (phrase, index of the picture)."""
        queries: list[tuple[int, str, int]] = []
        for number, row in enumerate(work):
            for metric in metrics_of(row.task, "detector"):
                look = metric.look(row.task)
                if look is not None and (phrase := row.phrase(look)):
                    queries += [(number, phrase, getattr(pair, look.side)) for pair in row.pairs]
        queries = list(dict.fromkeys(queries))
        results: list[dict[tuple[str, int], Detections]] = [{} for _ in work]
        if self.detector is not None:
            images = [work[number].images[picture] for number, _, picture in queries]
            found = self.detector.find(images, [phrase for _, phrase, _ in queries], self.config.batch)
            for (number, phrase, picture), detections in zip(queries, found, strict=True):
                if not detections.unknown:
                    results[number][phrase, picture] = detections
        return results


def _detects(tasks: Tasks) -> bool:
    """Whether any task has a metric that uses the detector."""
    return any(metrics_of(task, "detector") for task in tasks.values())


def _scores(evidence: Evidence) -> dict[str, float | None]:
    """Every metric of a candidate; null if its task does not list the metric."""
    listed = {metric.name: metric.compute(evidence) for metric in metrics_of(evidence.task)}
    return {name: listed.get(name) for name in MEASURED}


def _decide(row: Row, scores: list[dict[str, float | None]]) -> Decision:
    for k, values in enumerate(scores):
        for metric, value in values.items():
            if value is not None and not math.isfinite(np.float32(value)):
                return failed(NotFiniteError("score", f"{metric} of candidate {k}"))
    from stages.pictures.perceptual_hash import perceptual_hash

    anchor, *candidates = map(perceptual_hash, row.images)
    return kept(scores=scores, anchor_hash=anchor, candidate_hashes=candidates)
