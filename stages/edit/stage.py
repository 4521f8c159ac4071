"""Draw the target pictures: Prompt-to-Prompt under a soft mask, or an annotation of the anchor."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import Decision, Section, Stage, StageConfig, Weights, failed, kept, rejected, to_table
from stages.candidate import Several
from stages.edit.annotations.marks import Annotation, Subject
from stages.edit.request import EditRequest
from stages.finite import NotFiniteError
from stages.models.diffusion import DiffusionConfig
from stages.pictures.pixel_threshold import ALPHA
from stages.pictures.png import encode_png
from stages.tasks import Candidate, Tasks
from stages.written_text import AnnotationError


class PixelThreshold(Section):
    """:func:`stages.pictures.pixel_threshold.keep_unchanged`."""

    alpha: float = Field(ALPHA, ge=0, le=3, description="below it a pixel is the old one; of the RGB sum")
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
        {}, description="by task: candidates instead of the task file's"
    )
    mask_attention: bool = Field(True, description="whether the soft mask mixes attention outputs too")
    fusion: Literal["schedule", "power", "lerp", "none"] = Field(
        "schedule",
        description="how the soft mask holds the latents to the source's",
    )
    blend_tokens: int = Field(
        256,
        ge=1,
        le=1 << 16,
        description="LocalBlend follows the words in cross-attention layers of so many tokens",
    )
    pixel_threshold: PixelThreshold | None = Field(
        None, description="every candidate a second time, unchanged pixels as they were; for sessions"
    )
    depth: Weights | None = Field(None, description="a depth model of transformers; for depth and normal")
    pose: Weights | None = Field(None, description="a VitPose model of transformers; for pose")


class Edit(Stage[EditConfig]):
    """Draws every candidate of a row beside its own source row, all from the same noise.

    The source row is decoded again and becomes the published ``anchor``; ``source_drift`` is its
    mean difference from the source stage's picture (rounding only, unless something is wrong).

    In a later turn of a session the turns before are drawn again too, from the first one's noise, each
    reading its attention source from the one before; the anchor is the picture that the turn before
    published, and ``source_drift`` says how far its latents decode from that. With ``pixel_threshold``
    each candidate follows a second time, ``thresholded``.

    Tasks that annotate (:mod:`stages.edit.annotations.methods`) need no sampling.

    Rejections of tasks that annotate: ``adjustment_not_understood``, ``no_pose``, and of written text those
    of :func:`stages.edit.annotations.lettering.draw_text`. A drawing that is not finite fails its row.
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
        requests = [EditRequest.from_row(row) for row in rows.to_pylist()]
        sampled = [each for each in requests if self.tasks[each.turn.task].method == "prompt2prompt"]
        decisions = self.drawing.edit(sampled) if sampled else {}
        for request in requests:
            method = self.tasks[request.turn.task].method
            if method != "prompt2prompt":
                decisions[request.id] = _annotated(request, self.annotations[method])
        return to_table(rows["id"].to_pylist(), [decisions[each.id] for each in requests], self.schema)


def _annotated(request: EditRequest, draw: Annotation) -> Decision:
    """The anchor is the source picture as it is, the only candidate is the annotated one."""
    row = request.turn.row
    subject = Subject(
        request.picture, request.turn.region, row["instruction"] or "", row["edited_object"] or ""
    )
    try:
        target = draw(subject)
    except AnnotationError as error:
        return rejected(str(error))
    except NotFiniteError as error:
        return failed(error)
    candidate = {"image": encode_png(target), "candidate": 0, "thresholded": False, "mask": "none"}
    return kept(anchor=encode_png(request.picture), source_drift=0.0, candidates=[candidate])
