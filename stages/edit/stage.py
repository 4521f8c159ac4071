"""The edit stage: Prompt-to-Prompt under a soft mask, or an annotation of the anchor picture."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import Decision, Section, Stage, StageConfig, Weights, failed, kept, rejected, to_table
from stages.candidate import Several
from stages.edit.annotations.marks import Annotation
from stages.finite import NotFiniteError
from stages.models.diffusion import DiffusionConfig
from stages.pictures.pixel_threshold import ALPHA
from stages.pictures.png import decode_mask, decode_rgb, encode_png
from stages.tasks import Candidate, Tasks
from stages.written_text import AnnotationError


class PixelThreshold(Section):
    """Settings of :func:`stages.pictures.pixel_threshold.keep_unchanged`."""

    alpha: float = Field(ALPHA, ge=0, le=3, description="a smaller change (RGB sum) keeps the old pixel")
    kernel: int = Field(5, ge=1, le=255, description="side of the averaged neighbourhood in pixels, odd")

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"edit.pixel_threshold.kernel must be odd, not {self.kernel}")
        return self


class EditConfig(StageConfig):
    """The manifest's section ``edit``."""

    diffusion: DiffusionConfig
    self_max_tokens: int = Field(
        256, ge=1, le=1 << 16, description="self-attention is controlled in layers of at most so many tokens"
    )
    candidates: Mapping[str, Several[Candidate]] = Field(
        {}, description="by task: candidates that replace the task file's"
    )
    mask_attention: bool = Field(True, description="whether the soft mask also mixes attention outputs")
    fusion: Literal["schedule", "power", "lerp", "none"] = Field(
        "schedule",
        description="how the soft mask ties the latents to the source's",
    )
    blend_tokens: int = Field(
        256,
        ge=1,
        le=1 << 16,
        description="LocalBlend uses the cross-attention layers with so many tokens",
    )
    pixel_threshold: PixelThreshold | None = Field(
        None, description="second version of every candidate with unchanged pixels restored; for sessions"
    )
    depth: Weights | None = Field(None, description="a depth model of transformers; for depth and normal")
    pose: Weights | None = Field(None, description="a VitPose model of transformers; for pose")


class Edit(Stage[EditConfig]):
    """Draws every candidate of a row together with its source row, all from the same noise.

    The source row is decoded again and published as the ``anchor``. ``source_drift`` is its mean difference
    from the source stage's picture, normally only rounding.

    In a later turn of a session, the earlier turns are drawn again from the first turn's noise, and each turn
    reads the attention of the turn before. The anchor is then the picture that the turn before published;
    ``source_drift`` is the difference between this picture and the decoded latents. With ``pixel_threshold``,
    each candidate is followed by a second version, marked ``thresholded``.

    Tasks that annotate (:mod:`stages.edit.annotations.methods`) need no sampling.

    Rejections, only of tasks that annotate: ``adjustment_not_understood``, ``no_pose``, and for written text
    the reasons of :func:`stages.edit.annotations.lettering.draw_text`. A row fails if its drawing is not
    finite.
    """

    version: ClassVar[int] = 6
    redraws: ClassVar[bool] = True
    reads: ClassVar = {
        "plan": ["task", "seed"],
        "instruct": [
            "caption",
            "instruction",
            "output_caption",
            "edited_object",
            "original_object",
            "surroundings",
        ],
        "source": ["source_image"],
        "mask": ["boxes", "precise_mask", "smooth_mask", "soft_mask"],
    }
    task_keys: ClassVar = ["method", "direction", "region", "candidates", "composite", "ground", "fields"]
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("anchor", pa.binary()),
            pa.field("source_drift", pa.float32()),
            pa.field(
                "candidates",
                pa.list_(
                    pa.struct(
                        [
                            pa.field("image", pa.binary()),
                            pa.field("candidate", pa.int32()),
                            pa.field("thresholded", pa.bool_()),
                            pa.field("mask", pa.string()),
                            pa.field("cross_until", pa.float32()),
                            pa.field("self_until", pa.float32()),
                            pa.field("guidance_scale", pa.float32()),
                            pa.field("change_outside_raw", pa.float32()),
                            pa.field("contrast_raw", pa.float32()),
                        ]
                    )
                ),
            ),
        ]
    )
    Config: ClassVar[type[StageConfig]] = EditConfig

    def __init__(self, config: EditConfig, tasks: Tasks, *, turn: int = 1) -> None:
        from stages.edit.annotations.methods import load_annotations
        from stages.edit.draw import Drawing

        super().__init__(config, tasks, turn=turn)
        self.annotations = load_annotations(config, tasks)
        self.drawing = Drawing(config, tasks)

    @classmethod
    def problems(cls, config: EditConfig, tasks: Tasks) -> Iterator[str]:
        from stages.edit.annotations.methods import annotation_problems
        from stages.edit.prompt_to_prompt.windows import check_gates, with_candidates
        from stages.models.diffusion.folder import diffusion_problems

        try:
            check_gates(config.diffusion.steps, with_candidates(tasks, config.candidates))
        except ValueError as error:
            yield str(error)
        yield from diffusion_problems(config.diffusion)
        yield from annotation_problems(config, tasks)

    def resize(self, batch: int) -> None:
        super().resize(batch)
        self.drawing.config = self.config

    def __call__(self, rows: pa.Table) -> pa.Table:
        records = [decode_row(row) for row in rows.to_pylist()]
        sampled = [row for row in records if self.tasks[row["task"]].method == "prompt2prompt"]
        decisions = self.drawing.edit(sampled) if sampled else {}
        for row in records:
            method = self.tasks[row["task"]].method
            if method != "prompt2prompt":
                decisions[row["id"]] = _annotated(row, self.annotations[method])
        return to_table(rows["id"].to_pylist(), [decisions[row["id"]] for row in records], self.schema)


def _annotated(row: dict, draw: Annotation) -> Decision:
    """The source picture as anchor, and the annotated picture as the only candidate."""
    try:
        target = draw(row)
    except AnnotationError as error:
        return rejected(str(error))
    except NotFiniteError as error:
        return failed(error)
    candidate = {"image": encode_png(target), "candidate": 0, "thresholded": False, "mask": "none"}
    return kept(anchor=encode_png(row["source_image"]), source_drift=0.0, candidates=[candidate])


def decode_row(row: Mapping[str, Any]) -> dict:
    """The row with its pictures as uint8 [H,W,3] and its masks as float32 [H,W] in [0,1]."""
    history = [_decode_region(turn) for turn in row.get("history", [])]
    return {**_decode_region(row), "source_image": decode_rgb(row["source_image"]), "history": history}


def _decode_region(row: Mapping[str, Any]) -> dict:
    masks = {name: decode_mask(row[name]) for name in ("precise_mask", "smooth_mask", "soft_mask")}
    return {**row, **masks, "boxes": np.asarray(row["boxes"], np.float32).reshape(-1, 4)}
