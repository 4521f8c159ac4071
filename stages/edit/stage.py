"""The edit stage: Prompt-to-Prompt under a soft mask, or an annotation of the anchor picture."""

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import pyarrow as pa

from stages.base import PICTURES, Decision, Stage, StageConfig, failed, kept, rejected, to_table
from stages.edit.annotations.marks import Annotation, Subject
from stages.edit.config import EditConfig
from stages.edit.request import EditRequest
from stages.finite import NotFiniteError
from stages.pictures.png import encode_png
from stages.tasks import Tasks
from stages.written_text import AnnotationError


class Edit(Stage[EditConfig]):
    """Draws every candidate of a row together with its source row, all from the same noise.

    The source row is decoded again and published as the ``anchor``. ``source_drift`` is its mean difference
    from the source stage's picture: only rounding, or what ``source.preview_steps`` leave out.

    In a later turn of a session, the earlier turns are drawn again from the first turn's noise, and each turn
    reads the attention of the turn before. The anchor is then the picture that the turn before published;
    ``source_drift`` is the difference between this picture and the decoded latents. With ``pixel_threshold``,
    each candidate is followed by a second version, marked ``thresholded``, or replaced by it (``mode``).

    In a later round the candidates are others (:mod:`stages.edit.rounds`). With ``edit.region``, rows whose
    edits are cheap draw more of them (:mod:`stages.edit.row_candidates`).

    Tasks of method ``editor`` are drawn by another model (:mod:`stages.edit.by_editor`). Tasks that annotate
    (:mod:`stages.edit.annotations.methods`) need no sampling.

    Rejections, only of tasks that annotate: ``adjustment_not_understood``, ``no_pose``, and for written text
    the reasons of :func:`stages.edit.annotations.lettering.draw_text`. A row fails if its drawing is not
    finite.
    """

    version: ClassVar[int] = 7
    photographs: ClassVar[bool] = False
    """Whether the sources are pictures of the captions' rows, and are forced, not drawn."""
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
        from stages.edit.by_editor import EditorDrawing
        from stages.edit.draw import Drawing

        super().__init__(config, tasks, turn=turn)
        self.annotations = load_annotations(config, tasks)
        drawn, edited = tasks.of_method("prompt2prompt"), tasks.of_method("editor")
        self.drawing = Drawing(config, drawn, photographs=self.photographs) if drawn else None
        self.by_editor = EditorDrawing(config, edited) if edited else None

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        return EditPhotographs if PICTURES in stages else cls

    @classmethod
    def problems(cls, config: EditConfig, tasks: Tasks) -> Iterator[str]:
        from stages.edit.annotations.methods import annotation_problems
        from stages.edit.rounds import RoundCandidates
        from stages.edit.suited import control_problems, editor_problems
        from stages.models.diffusion.families.files import PipelineFiles
        from stages.models.diffusion.folder import diffusion_problems

        candidates, stated = None, (config.candidates, config.rounds)
        try:
            edited = RoundCandidates(tasks.of_method("editor"), *stated, config.diffusion.steps)
            candidates = RoundCandidates(tasks.of_method("prompt2prompt"), *stated, config.diffusion.steps)
            yield from editor_problems(config, edited)
        except ValueError as error:
            yield str(error)
        damaged = list(diffusion_problems(config.diffusion))
        yield from damaged
        folder = config.diffusion.path
        if candidates is not None and folder is not None and folder.exists() and not damaged:
            files = PipelineFiles(folder)
            yield from control_problems(config, candidates, files.family, files.network)
        yield from annotation_problems(config, tasks)
        for key in ("skip", "source_guidance"):
            if getattr(config, key) != config.implied[key] and not cls.photographs:
                yield f"edit.{key} is for given pictures: take it out, or name captions.picture"

    @classmethod
    def activations(cls, config: EditConfig, tasks: Tasks) -> int | None:
        from stages.edit.rounds import RoundCandidates
        from stages.models.diffusion.families.files import PipelineFiles
        from stages.models.weight_files import folder_of

        folder = folder_of(config.diffusion)
        drawn = RoundCandidates(tasks, config.candidates, config.rounds, config.diffusion.steps)
        if folder is None or config.editor is not None:
            return None
        rows, maps = config.batch * (1 + drawn.most(1, cheap=False)), config.control == "p2p"
        return PipelineFiles(folder).drawing_bytes(config.diffusion, rows, maps=maps)

    @classmethod
    def bytes_a_pixel(cls, config: EditConfig, tasks: Tasks) -> int:
        from stages.edit.rounds import RoundCandidates

        drawn = RoundCandidates(
            tasks, config.candidates, config.rounds, config.diffusion.steps, config.cheap_candidates
        )
        twice = config.pixel_threshold is not None and config.pixel_threshold.mode == "candidate"
        return 3 * (1 + drawn.most(1, cheap=True) * (2 if twice else 1))

    def resize(self, batch: int) -> None:
        super().resize(batch)
        if self.drawing is not None:
            self.drawing.config = self.config

    def __call__(self, rows: pa.Table) -> pa.Table:
        requests = [EditRequest.from_row(row) for row in rows.to_pylist()]
        sampled = [each for each in requests if self.tasks[each.turn.task].method == "prompt2prompt"]
        decisions = self.drawing.edit(sampled) if self.drawing is not None and sampled else {}
        for request in requests:
            if request.id not in decisions:
                decisions[request.id] = self._alone(request)
        return to_table(rows["id"].to_pylist(), [decisions[each.id] for each in requests], self.schema)

    def _alone(self, request: EditRequest) -> Decision:
        """The decision about a row that is not drawn together with others."""
        method = self.tasks[request.turn.task].method
        if self.by_editor is not None and method == "editor":
            return self.by_editor.edit(request)
        return _annotated(request, self.annotations[method])


class EditPhotographs(Edit):
    """Edits the pictures of the captions' rows (:mod:`stages.edit.prompt_to_prompt.forced`).

    The anchor is the row's own picture to the bit. ``source_drift`` is its mean difference from what the VAE
    makes of it.
    """

    photographs: ClassVar[bool] = True


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
