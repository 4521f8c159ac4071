"""The edit stage: Prompt-to-Prompt under a soft mask, or an annotation of the anchor picture."""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import Decision, Stage, StageConfig, Weights, failed, kept, rejected, to_table
from stages.candidate import Several
from stages.edit.annotations.marks import Annotation, Subject
from stages.edit.request import EditRequest
from stages.edit.threshold import PixelThreshold
from stages.finite import NotFiniteError
from stages.models.diffusion import DiffusionConfig
from stages.pictures.png import encode_png
from stages.tasks import Candidate, Tasks
from stages.written_text import AnnotationError


class EditConfig(StageConfig):
    """The manifest's section ``edit``."""

    implied: ClassVar = {"region": "whole", "region_halo": 1 / 16, "hold": "none"}

    diffusion: DiffusionConfig
    self_max_tokens: int = Field(
        256,
        ge=1,
        le=1 << 16,
        description="self-attention is controlled in layers of at most so many tokens, "
        "in a picture of the model's own size",
    )
    candidates: Mapping[str, Several[Candidate]] = Field(
        {}, description="by task: candidates that replace the task file's"
    )
    rounds: Mapping[str, Annotated[Several[Several[Candidate]], Field(min_length=1)]] = Field(
        {},
        description="by task: the candidates of round 2, 3, ...; other tasks vary those of the first round",
    )
    mask_attention: bool = Field(True, description="whether the soft mask also mixes attention outputs")
    fusion: Literal["schedule", "power", "lerp", "none"] = Field(
        "schedule",
        description="how the soft mask ties the latents to the source's",
    )
    region: Literal["whole", "support", "schedule"] = Field(
        "whole",
        description="where an edit is computed: the whole picture; where its mask is above 0; or, in each "
        "step, where the fusion frees it. Elsewhere it reads its source's activations, which is faster. "
        "For transformers whole, or schedule with hold: exact",
    )
    region_halo: float = Field(
        1 / 16,
        ge=0,
        le=0.5,
        description="what is computed around that region too, as a fraction of the picture's shorter "
        "side; for U-Nets",
    )
    hold: Literal["none", "exact"] = Field(
        "none",
        description="exact: what the fusion keeps at the source's is the source's in every block too; for "
        "transformers, with mask_attention: false",
    )
    blend_tokens: int = Field(
        256,
        ge=1,
        le=1 << 16,
        description="LocalBlend uses the cross-attention layers with so many tokens, "
        "in a picture of the model's own size",
    )
    pixel_threshold: PixelThreshold | None = Field(
        None, description="restores the pixels that an edit hardly changed; for sessions"
    )
    depth: Weights | None = Field(None, description="a depth model of transformers; for depth and normal")
    pose: Weights | None = Field(None, description="a VitPose model of transformers; for pose")

    @model_validator(mode="after")
    def _one_hold(self) -> Self:
        if self.hold == "exact" and (self.mask_attention or self.fusion != "schedule"):
            raise ValueError(
                "edit.hold: exact takes the place of mask_attention and follows the fusion's schedule: set "
                "mask_attention: false, fusion: schedule"
            )
        return self

    @model_validator(mode="after")
    def _compiled_whole(self) -> Self:
        for key, value, usual in (("region", self.region, "whole"), ("hold", self.hold, "none")):
            if value != usual and self.diffusion.compile:
                raise ValueError(
                    f"edit.{key}: {value} takes the network's layers apart, so it cannot be compiled: set "
                    f"diffusion.compile: false, or edit.{key}: {usual}"
                )
        return self


class Edit(Stage[EditConfig]):
    """Draws every candidate of a row together with its source row, all from the same noise.

    The source row is decoded again and published as the ``anchor``. ``source_drift`` is its mean difference
    from the source stage's picture: only rounding, or what ``source.preview_steps`` leave out.

    In a later turn of a session, the earlier turns are drawn again from the first turn's noise, and each turn
    reads the attention of the turn before. The anchor is then the picture that the turn before published;
    ``source_drift`` is the difference between this picture and the decoded latents. With ``pixel_threshold``,
    each candidate is followed by a second version, marked ``thresholded``, or replaced by it (``mode``).

    In a later round the candidates are others (:mod:`stages.edit.rounds`).

    Tasks that annotate (:mod:`stages.edit.annotations.methods`) need no sampling.

    Rejections, only of tasks that annotate: ``adjustment_not_understood``, ``no_pose``, and for written text
    the reasons of :func:`stages.edit.annotations.lettering.draw_text`. A row fails if its drawing is not
    finite.
    """

    version: ClassVar[int] = 7
    redraws: ClassVar[bool] = True
    final: ClassVar = (
        "caption_exceeds_text_encoder",
        "adjustment_not_understood",
        "text_not_quoted",
        "text_quotes_unclear",
        "several_texts",
    )
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
        from stages.edit.rounds import RoundCandidates
        from stages.edit.suited import control_problems
        from stages.models.diffusion.families.files import PipelineFiles
        from stages.models.diffusion.folder import diffusion_problems

        candidates = None
        try:
            candidates = RoundCandidates(tasks, config.candidates, config.rounds, config.diffusion.steps)
        except ValueError as error:
            yield str(error)
        damaged = list(diffusion_problems(config.diffusion))
        yield from damaged
        folder = config.diffusion.path
        if candidates is not None and folder is not None and folder.exists() and not damaged:
            files = PipelineFiles(folder)
            yield from control_problems(config, candidates, files.family, files.network)
        yield from annotation_problems(config, tasks)

    @classmethod
    def activations(cls, config: EditConfig, tasks: Tasks) -> int | None:
        from stages.edit.rounds import RoundCandidates
        from stages.models.diffusion.families.files import PipelineFiles
        from stages.models.weight_files import folder_of

        folder = folder_of(config.diffusion)
        drawn = RoundCandidates(tasks, config.candidates, config.rounds, config.diffusion.steps)
        if folder is None:
            return None
        return PipelineFiles(folder).drawing_bytes(config.diffusion, config.batch * (1 + drawn.most(1)))

    @classmethod
    def bytes_a_pixel(cls, config: EditConfig, tasks: Tasks) -> int:
        from stages.edit.rounds import RoundCandidates

        drawn = RoundCandidates(tasks, config.candidates, config.rounds, config.diffusion.steps)
        twice = config.pixel_threshold is not None and config.pixel_threshold.mode == "candidate"
        return 3 * (1 + drawn.most(1) * (2 if twice else 1))

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
    """The source picture as anchor, and the annotated picture as the only candidate."""
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
