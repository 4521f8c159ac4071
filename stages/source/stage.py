"""The source stage: draws the anchor picture, in which the object to be grounded is present."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self

from stages.base import PICTURES, Decision, Stage, StageConfig, failed, kept, rejected, to_table
from stages.candidate import MOST_STEPS
from stages.finite import NotFiniteError
from stages.models.batches import filled
from stages.models.diffusion import DiffusionConfig
from stages.pair import anchor_and_edit_prompts
from stages.pictures.png import encode_png
from stages.tasks import Task, Tasks

DETERMINISTIC = ("ddim", "euler", "flow_euler")
"""Samplers that draw about the same picture with fewer steps."""


class SourceConfig(StageConfig):
    """The manifest's section ``source``."""

    implied: ClassVar = {"preview_steps": None}

    diffusion: DiffusionConfig
    preview_steps: int | None = Field(
        None,
        ge=1,
        le=MOST_STEPS,
        description="steps of the pictures that are only grounded, because the edit stage draws them again "
        "with diffusion.steps and publishes these; by default as many",
    )

    @model_validator(mode="after")
    def _previews_show_the_same_picture(self) -> Self:
        steps = self.diffusion.steps
        if self.preview_steps is None:
            return self
        if self.preview_steps >= steps:
            raise ValueError(f"preview_steps = {self.preview_steps} is not below diffusion.steps = {steps}")
        if self.diffusion.sampler not in DETERMINISTIC:
            raise ValueError(
                f"preview_steps needs a sampler that adds no noise ({', '.join(DETERMINISTIC)}): with "
                f"{self.diffusion.sampler} and other steps, another picture is drawn"
            )
        return self

    @property
    def shapes(self) -> int:
        return len(self.diffusion.sizes)

    @property
    def task_keys(self) -> Sequence[str]:
        return () if self.preview_steps is None else ("method",)


class Source(Stage[SourceConfig]):
    """Draws one picture per row, in the size that the row's seed chooses (``diffusion.buckets``).

    It is used for grounding. The edit stage draws it again beside its Prompt-to-Prompt edits and publishes
    that one, so ``preview_steps`` can be fewer. Tasks that compute their target publish this picture.
    """

    version: ClassVar[int] = 3
    reads: ClassVar = {
        "plan": ["task", "seed"],
        "instruct": ["caption", "output_caption", "surroundings"],
    }
    task_keys: ClassVar = ["direction", "fields"]
    schema: ClassVar[pa.Schema] = pa.schema([pa.field("source_image", pa.binary())])

    Config: ClassVar[type[StageConfig]] = SourceConfig

    def __init__(self, config: SourceConfig, tasks: Tasks, *, turn: int = 1) -> None:
        from stages.models.diffusion.model import Diffusion

        super().__init__(config, tasks, turn=turn)
        self.model = Diffusion(config.diffusion)

    @classmethod
    def beside(cls, stages: Collection[str]) -> type[Stage[Any]]:
        from stages.source.photographs import Photographs

        return Photographs if PICTURES in stages else cls

    @classmethod
    def problems(cls, config: SourceConfig, tasks: Tasks) -> Iterator[str]:
        from stages.models.diffusion.folder import diffusion_problems

        return diffusion_problems(config.diffusion)

    @classmethod
    def activations(cls, config: SourceConfig, tasks: Tasks) -> int | None:
        from stages.models.diffusion.families.files import PipelineFiles
        from stages.models.weight_files import folder_of

        folder = folder_of(config.diffusion)
        if folder is None:
            return None
        return PipelineFiles(folder).drawing_bytes(config.diffusion, config.batch)

    @classmethod
    def pixels(cls, config: SourceConfig) -> int | None:
        from stages.models.diffusion.families.files import drawn_pixels
        from stages.models.weight_files import folder_of

        return drawn_pixels(config.diffusion, folder_of(config.diffusion))

    @classmethod
    def bytes_a_pixel(cls, config: SourceConfig, tasks: Tasks) -> int:
        return 3

    def __call__(self, rows: pa.Table) -> pa.Table:
        records = rows.to_pylist()
        decisions: list[Decision | None] = [None] * len(records)
        drawn: dict[tuple[tuple[int, int] | None, int], list[tuple[int, tuple[str, str]]]] = {}
        for index, row in enumerate(records):
            task = self.tasks[row["task"]]
            both = anchor_and_edit_prompts(task, row)
            if all(self.model.prompts.fits(prompt) for prompt in both):
                kind = self.config.diffusion.size_of(row["seed"]), self._steps(task)
                drawn.setdefault(kind, []).append((index, both))
            else:
                decisions[index] = rejected("caption_exceeds_text_encoder")
        for (size, steps), group in drawn.items():
            seeds = [records[index]["seed"] for index, _ in group]
            images, whole = self._draw([pair for _, pair in group], seeds, size, steps)
            for (index, _), image, finite in zip(group, images, whole, strict=True):
                if finite:
                    decisions[index] = kept(source_image=encode_png(image))
                else:
                    decisions[index] = failed(NotFiniteError("source", "the drawn picture"))
        return to_table(rows["id"].to_pylist(), [d for d in decisions if d], self.schema)

    def _steps(self, task: Task) -> int:
        preview, steps = self.config.preview_steps, self.config.diffusion.steps
        return preview if preview and task.method == "prompt2prompt" else steps

    def _draw(
        self, pairs: list[tuple[str, str]], seeds: list[int], size: tuple[int, int] | None, steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the first captions of pairs as pictures uint8 [n,H,W,3], and tell which are finite, bool [n].

        The batch is filled to its fixed size with copies of the last row.
        """
        import torch

        wanted = len(pairs)
        pairs, seeds = filled(pairs, self.config.batch), filled(seeds, self.config.batch)
        model, settings = self.model, self.config.diffusion
        latents = model.sample(
            model.initial_latents(seeds, size),
            model.family.encode([before for before, _ in pairs], pairs),
            torch.full((len(pairs),), settings.guidance_scale),
            seeds,
            steps=steps,
        )
        images, finite = model.decode(latents)
        return images[:wanted], finite[:wanted]
