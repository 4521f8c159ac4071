"""The mask stage: find the phrase in the picture, segment it, and make a soft mask of where to edit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import Decision, Section, Stage, StageConfig, failed, kept, rejected, to_table
from stages.finite import NotFiniteError
from stages.models.grounding import GroundingConfig, load_detector
from stages.models.segmenter import SegmenterWeights, load_segmenter
from stages.pictures.masks import fill_boxes, smooth_mask, soft_mask, without_specks
from stages.pictures.png import decode_rgb, encode_png
from stages.tasks import Tasks


class SoftMaskWeights(Section):
    """Weight of each mask in the soft mask."""

    precise: float = Field(0.5, ge=0, le=1)
    smooth: float = Field(0.3, ge=0, le=1)
    box: float = Field(0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.precise + self.smooth + self.box
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"weights: precise, smooth and box must sum to 1, not {total:g}; "
                "change one of them so that they do"
            )
        return self


Dilate = Annotated[float, Field(ge=0, le=0.5, description="radius, as a fraction of the shorter side")]
Blur = Annotated[float, Field(ge=0, le=0.25, description="sigma, as a fraction of the shorter side")]


class TaskMask(Section):
    """The soft mask of one task. A key that is not stated is that of the section ``mask``."""

    weights: SoftMaskWeights | None = None
    dilate: Dilate | None = None
    blur: Blur | None = None


class MaskConfig(StageConfig):
    """The manifest's section ``mask``."""

    grounding: GroundingConfig
    segmenter: SegmenterWeights
    weights: SoftMaskWeights = SoftMaskWeights(precise=0.5, smooth=0.3, box=0.2)
    dilate: Dilate = 0.06
    blur: Blur = 0.02
    tasks: Mapping[str, TaskMask] = Field(
        default={}, description="by task: weights, dilate or blur that replace those for all tasks"
    )
    specks: float = Field(
        0.05, ge=0, lt=1, description="smaller holes and islands go, as a fraction of the precise mask"
    )
    min_area: float = Field(0.003, ge=0, le=1, description="of the precise mask, as a fraction")
    max_area: float = Field(0.8, ge=0, le=1, description="of the precise mask, as a fraction")
    max_boxes: int = Field(8, ge=1, le=900, description="a phrase found more often is rejected")

    @model_validator(mode="after")
    def _some_area_fits(self) -> Self:
        if self.min_area > self.max_area:
            raise ValueError(
                f"mask.min_area = {self.min_area:g} is above mask.max_area = {self.max_area:g}: "
                "nothing could pass"
            )
        return self

    def of(self, task: str) -> "MaskConfig":
        """The section with the values of a task."""
        stated = self.tasks.get(task, TaskMask())
        values = {name: getattr(stated, name) for name in TaskMask.model_fields}
        return self.model_copy(update={name: value for name, value in values.items() if value is not None})


class Mask(Stage[MaskConfig]):
    """Finds each row's phrase in its anchor picture and writes the row's masks.

    Rejections: ``not_grounded`` (the phrase is empty or was not found; the nearest miss is recorded as the
    only box), ``unknown_word`` (the detector does not know a word of the phrase), ``too_many_boxes``,
    ``mask_area``. For a task without grounding, the mask covers the whole picture and there is no box.
    """

    version: ClassVar[int] = 4
    reads: ClassVar[Mapping[str, Sequence[str]]] = {
        "plan": ["task"],
        "instruct": ["edited_object", "original_object"],
        "source": ["source_image"],
    }
    task_keys: ClassVar[Sequence[str]] = ("ground",)
    final: ClassVar[Sequence[str]] = ("unknown_word",)
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("phrase", pa.string()),
            ("boxes", pa.list_(pa.list_(pa.float32()))),
            ("box_scores", pa.list_(pa.float32())),
            ("precise_mask", pa.binary()),
            ("smooth_mask", pa.binary()),
            ("soft_mask", pa.binary()),
            ("mask_area", pa.float32()),
        ]
    )
    Config: ClassVar[type[StageConfig]] = MaskConfig

    def __init__(self, config: MaskConfig, tasks: Tasks, *, turn: int = 1) -> None:
        super().__init__(config, tasks, turn=turn)
        tasks.check_known(config.tasks, "mask.tasks")
        self.detector = load_detector(config.grounding)
        self.segmenter = load_segmenter(config.segmenter)

    @classmethod
    def problems(cls, config: MaskConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.grounding.folder import grounding_problems
        from stages.models.segmenter.folder import segmenter_problems

        try:
            tasks.check_known(config.tasks, "mask.tasks")
        except ValueError as error:
            yield str(error)
        yield from grounding_problems(config.grounding)
        yield from segmenter_problems(config.segmenter)

    @classmethod
    def bytes_a_pixel(cls, config: MaskConfig, tasks: Tasks) -> int:
        return 3  # three masks

    def __call__(self, rows: pa.Table) -> pa.Table:
        records = rows.to_pylist()
        images = [decode_rgb(record["source_image"]) for record in records]
        decisions: list[Decision | None] = [None] * len(records)
        phrases: dict[int, str] = {}
        for i, record in enumerate(records):
            ground = self.tasks[record["task"]].ground
            if ground == "none":
                decisions[i] = self._whole_picture(images[i].shape[:2])
            elif record[ground] and record[ground].strip():
                phrases[i] = record[ground].strip()
            else:
                decisions[i] = rejected("not_grounded", phrase="")
        names = [records[i]["task"] for i in phrases]
        for i, decision in zip(phrases, self._ground(images, phrases, names), strict=True):
            decisions[i] = decision
        return to_table(rows["id"].to_pylist(), [d for d in decisions if d is not None], self.schema)

    def _ground(self, images: list[np.ndarray], phrases: dict[int, str], tasks: list[str]) -> list[Decision]:
        """Decide the rows whose index is a key of ``phrases``; ``tasks`` are these rows' tasks."""
        pictures = [images[i] for i in phrases]
        found = self.detector.find(pictures, list(phrases.values()), self.config.batch)
        prompts = [f.boxes if len(f.boxes) <= self.config.max_boxes else f.boxes[:0] for f in found]
        masks = self.segmenter.segment(pictures, prompts, self.config.batch)
        decisions = []
        for phrase, task, detections, instances in zip(phrases.values(), tasks, found, masks, strict=True):
            boxes, scores = detections.boxes, detections.scores
            columns = {"phrase": phrase, "boxes": boxes.tolist(), "box_scores": scores.tolist()}
            if detections.unknown:
                decisions.append(rejected("unknown_word", **columns))
            elif math.isnan(detections.best_score):
                decisions.append(failed(NotFiniteError("mask", "the detector's output"), **columns))
            elif instances is None:
                decisions.append(failed(NotFiniteError("mask", "the segmenter's output"), **columns))
            elif not len(boxes):
                miss = {"boxes": [detections.best_box.tolist()], "box_scores": [detections.best_score]}
                decisions.append(rejected("not_grounded", **{**columns, **miss}))
            elif len(boxes) > self.config.max_boxes:
                decisions.append(rejected("too_many_boxes", **columns))
            else:
                whole = [without_specks(mask, self.config.specks) for mask in instances]
                decisions.append(self._decide(np.any(whole, axis=0), boxes, columns, self.config.of(task)))
        return decisions

    def _decide(
        self, union: np.ndarray, boxes: np.ndarray, columns: dict[str, Any], config: MaskConfig
    ) -> Decision:
        precise = union.astype(np.float32)
        smooth = smooth_mask(precise, config.dilate, config.blur)
        weights = config.weights
        mixed = (weights.precise, weights.smooth, weights.box)
        soft = soft_mask(precise, smooth, fill_boxes(boxes, union.shape), mixed)
        area = float(precise.mean())
        masks = _as_png(precise_mask=precise, smooth_mask=smooth, soft_mask=soft)
        if not self.config.min_area <= area <= self.config.max_area:
            return rejected("mask_area", **columns, **masks, mask_area=area)
        return kept(**columns, **masks, mask_area=area)

    def _whole_picture(self, shape: tuple[int, ...]) -> Decision:
        ones = np.ones(shape, np.float32)
        masks = _as_png(precise_mask=ones, smooth_mask=ones, soft_mask=ones)
        return kept(phrase="", boxes=[], box_scores=[], **masks, mask_area=1.0)


def _as_png(**masks: np.ndarray) -> dict[str, bytes]:
    """Encode masks in [0,1] as 8-bit grey PNGs."""
    return {name: encode_png(np.round(mask * 255).astype(np.uint8)) for name, mask in masks.items()}
