"""The score stage: one struct of metrics a candidate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.base import Decision, Stage, StageConfig, Weights, failed, kept, to_table
from stages.finite import NotFiniteError
from stages.models.config import ClipConfig, ProbeWeights
from stages.models.grounding import GroundingConfig, load_detector
from stages.pair import EditPair, as_pair
from stages.pictures.masks import fill_boxes, regions, share_within
from stages.pictures.png import decode_mask, decode_rgb
from stages.score.metrics import METRICS, check_metrics, detector_phrase
from stages.score.optional import OptionalModels
from stages.tasks import Task, Tasks
from stages.written_text import new_text

if TYPE_CHECKING:
    from stages.models.grounding.detector import Detections

DETECTOR_METRICS = ("present", "absent", "absent_before")


class ScoreConfig(StageConfig):
    """The manifest's section ``score``; ``batch`` is also that of every model."""

    clip: ClipConfig
    grounding: GroundingConfig
    dino: Weights | None = Field(None, description="a DINOv2 model of transformers; None: the metric is null")
    depth: Weights | None = Field(None, description="a depth model of transformers; None: the metric is null")
    aesthetic: ProbeWeights | None = Field(None, description="a linear probe of clip.model's embeddings")
    nsfw: ProbeWeights | None = Field(None, description="the same, for pictures that nobody wants")
    ocr: bool = Field(False, description="read written text, for the task text (editpairs[ocr])")


@dataclass(frozen=True)
class Row:
    """A row with its pictures decoded: the anchor, then the candidates."""

    task: Task
    record: Mapping[str, Any]

    @cached_property
    def images(self) -> list[np.ndarray]:
        encoded = [self.record["anchor"], *(c["image"] for c in self.record["candidates"])]
        return [decode_rgb(image) for image in encoded]

    @cached_property
    def pairs(self) -> list[EditPair[int]]:
        """A pair a candidate; its pictures are indices into ``images``."""
        captions = self.record["caption"], self.record["output_caption"]
        return [as_pair(self.task, 0, k, *captions) for k in range(1, len(self.images))]

    @cached_property
    def precise(self) -> np.ndarray:
        """What the segmenter found: float [h,w]."""
        return decode_mask(self.record["precise_mask"])

    @property
    def boxes(self) -> np.ndarray:
        """What the detector found: float [n,4]."""
        return np.array(self.record["boxes"], np.float32)

    @property
    def written(self) -> str:
        """What is to be read where text was written; empty where the task writes none."""
        if "text_read" not in self.task.metrics:
            return ""
        return new_text(self.record["edited_object"], self.record["instruction"])

    @cached_property
    def regions(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Where the edit is, and where nothing may change: bool [h,w]."""
        return regions(self.task.region, self.precise, self.boxes)


class Score(Stage[ScoreConfig]):
    """Computes the metrics that each task lists; the others are null. Decides nothing.

    A metric that is not finite fails its row. One that cannot be measured is null: CLIP's of a caption
    and the detector's of a phrase with a word that its tokenizer does not know. Each picture and each
    caption is encoded once.
    """

    version: ClassVar[int] = 7
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task"],
        "instruct": ["caption", "instruction", "output_caption", "edited_object", "original_object"],
        "mask": ["precise_mask", "boxes"],
        "edit": ["anchor", "candidates"],
    }
    task_keys: ClassVar[Sequence[str]] = ("metrics", "region", "direction", "fields")
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("scores", pa.list_(pa.struct([(metric, pa.float32()) for metric in METRICS]))),
            ("anchor_hash", pa.int64()),
            ("candidate_hashes", pa.list_(pa.int64())),
        ]
    )
    Config: ClassVar[type[StageConfig]] = ScoreConfig

    def __init__(self, config: ScoreConfig, tasks: Tasks, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        check_metrics(tasks)
        import torch

        from stages.models.clip import Clip

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.clip = Clip.load(config.clip, device)
        self.detector = load_detector(config.grounding, device) if _detects(tasks) else None
        self.optional = OptionalModels(config, self.clip.width, device)

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
        texts, pictures = self._encode_texts(work), self._encode_images(work)
        found = self._detect(work)
        decisions = []
        for row, features, detections in zip(work, pictures, found, strict=True):
            try:
                seen = self.optional.look(row.task.metrics, row.images, row.boxes, row.written)
            except NotFiniteError as error:
                decisions.append(failed(error))
                continue
            scores = [
                _clip_metrics(pair, features, texts)
                | fidelity_metrics(row, pair, candidate)
                | _detector_metrics(row, pair, detections)
                | self.optional.score(pair, features, seen)
                for pair, candidate in zip(row.pairs, row.record["candidates"], strict=True)
            ]
            decisions.append(_decide(row, scores))
        return to_table(rows["id"].to_pylist(), decisions, self.schema)

    def _encode_texts(self, work: list[Row]) -> dict[str, np.ndarray]:
        """By caption, of those that CLIP knows all words of."""
        pairs = [pair for row in work for pair in row.pairs]
        captions = [c for pair in pairs for c in (pair.input_caption, pair.output_caption)]
        texts = list(dict.fromkeys(captions))
        encoded = zip(texts, self.clip.encode_texts(texts, self.config.batch), strict=True)
        return {text: features for text, features in encoded if self.clip.knows(text)}

    def _encode_images(self, work: list[Row]) -> list[np.ndarray]:
        """For each row [images,d]."""
        images = [image for row in work for image in row.images]
        features = self.clip.encode_images(images, self.config.batch)
        return np.split(features, np.cumsum([len(row.images) for row in work])[:-1])

    def _detect(self, work: list[Row]) -> list[dict[tuple[str, int], "Detections"]]:
        """For each row what was found, by (metric, index of the picture)."""
        queries: list[tuple[int, str, int, str]] = []
        for r, row in enumerate(work):
            for metric in DETECTOR_METRICS:
                phrase = detector_phrase(row.task, metric, row.record)
                if metric in row.task.metrics and phrase:
                    before = metric == "absent_before"
                    pictures = dict.fromkeys(pair.input if before else pair.target for pair in row.pairs)
                    queries += [(r, metric, picture, phrase) for picture in pictures]
        results: list[dict[tuple[str, int], Detections]] = [{} for _ in work]
        if self.detector is not None:
            images = [work[r].images[picture] for r, _, picture, _ in queries]
            found = self.detector.find(images, [phrase for *_, phrase in queries], self.config.batch)
            for (r, metric, picture, _), detections in zip(queries, found, strict=True):
                if not detections.unknown:
                    results[r][metric, picture] = detections
        return results


def _detects(tasks: Tasks) -> bool:
    """Whether a metric of any task asks the detector."""
    return any(metric in task.metrics for task in tasks.values() for metric in DETECTOR_METRICS)


def _clip_metrics(
    pair: EditPair[int], images: np.ndarray, texts: Mapping[str, np.ndarray]
) -> dict[str, float | None]:
    from stages.models.clip import direction, similarity

    i, tar = images[pair.input], images[pair.target]
    before, after = texts.get(pair.input_caption), texts.get(pair.output_caption)
    change = None
    if before is not None and after is not None and pair.input_caption != pair.output_caption:
        change = direction(i, tar, before, after)
    return {
        "clip_text_input": None if before is None else similarity(i, before),
        "clip_text_output": None if after is None else similarity(tar, after),
        "clip_direction": change,
        "clip_image": similarity(i, tar),
    }


def _detector_metrics(
    row: Row, pair: EditPair[int], found: Mapping[tuple[str, int], "Detections"]
) -> dict[str, float | None]:
    """The best scores of any box, found or not, and how much of what is there lies where the edit is."""
    there, gone = found.get(("present", pair.target)), found.get(("absent", pair.target))
    before = found.get(("absent_before", pair.input))
    inside, _ = row.regions
    frame = fill_boxes(row.boxes, inside.shape) > 0
    return {
        "present": there.best_score if there else None,
        "present_overlap": share_within(there.best_box, inside) if there else None,
        "absent": gone.best_score if gone else None,
        "absent_before": before.best_within(frame) if before else None,
    }


def fidelity_metrics(row: Row, pair: EditPair[int], candidate: Mapping[str, Any]) -> dict[str, float | None]:
    from stages.pictures.fidelity import (
        as_float,
        clipped,
        contrast,
        gmsd,
        mask_fit,
        mean_change,
        roughness,
        ssim,
    )

    i, tar = as_float(row.images[pair.input]), as_float(row.images[pair.target])
    inside, outside = row.regions
    drawn = candidate["contrast_raw"]
    return {
        "change": float(np.abs(tar - i).mean()),
        "change_inside": mean_change(i, tar, inside),
        "change_outside": mean_change(i, tar, outside),
        "change_outside_raw": candidate["change_outside_raw"],
        "ssim_outside": ssim(i, tar, outside) if "ssim_outside" in row.task.metrics else None,
        "gmsd": gmsd(i, tar) if "gmsd" in row.task.metrics else None,
        "mask_fit": mask_fit(row.boxes, row.precise) if "mask_fit" in row.task.metrics else None,
        "clipped": max(clipped(i), clipped(tar)),
        "contrast": min(contrast(i), contrast(tar), *([] if drawn is None else [drawn])),
        "roughness": max(roughness(i), roughness(tar)),
    }


def _decide(row: Row, scores: list[dict[str, float | None]]) -> Decision:
    listed = [{m: values.get(m) if m in row.task.metrics else None for m in METRICS} for values in scores]
    for k, values in enumerate(listed):
        for metric, value in values.items():
            if value is not None and not math.isfinite(np.float32(value)):
                return failed(NotFiniteError("score", f"{metric} of candidate {k}"))
    from stages.pictures.perceptual_hash import perceptual_hash

    anchor, *candidates = map(perceptual_hash, row.images)
    return kept(scores=listed, anchor_hash=anchor, candidate_hashes=candidates)
