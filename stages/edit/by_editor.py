"""Edits by a model that reads the instruction itself (``method: editor``), under our mask.

Such a model redraws the whole picture and shifts pixels that nobody asked it to change. Here the soft mask
ties its latents to the picture's after each step, as it ties an edit's to its source's (``edit.fusion``), and
the outside is pasted afterwards, for tasks with ``composite``.
"""

import numpy as np
import torch

from stages.base import Decision, failed
from stages.edit.config import EditConfig
from stages.edit.decide import Drawn, decide
from stages.edit.prompt_to_prompt.fusion import fuse
from stages.edit.prompt_to_prompt.recipe import draw_strength
from stages.edit.request import EditRequest
from stages.edit.rounds import RoundCandidates
from stages.edit.suited import editor_problems
from stages.finite import NotFiniteError
from stages.models.editors import EditorConfig, InstructionEdit, InstructionEditor
from stages.models.editors.folder import TASKS_FOLDER
from stages.models.weight_files import folder_of
from stages.seeds import derive_seed
from stages.tasks import Tasks


class EditorDrawing:
    """Draws the candidates of rows one by one, each from a seed of its own."""

    def __init__(self, config: EditConfig, tasks: Tasks) -> None:
        self.candidates = RoundCandidates(tasks, config.candidates, config.rounds, config.diffusion.steps)
        for problem in editor_problems(config, self.candidates):
            raise ValueError(problem)
        assert config.editor is not None, "otherwise there is a problem"
        self.config, self.guidance_scale = config, config.editor.guidance_scale
        self.tasks, self.editor = self.candidates.first, load_editor(config.editor)

    def edit(self, row: EditRequest) -> Decision:
        """The decision about a row. Its picture is the anchor."""
        task = self.tasks[row.turn.task]
        drawn, images = [], [row.picture]
        first = self.candidates.before(task.name, row.round)
        for number, candidate in enumerate(self.candidates.of(task.name, row.round), first):
            strength = draw_strength(candidate, row.turn.seed, number, 1, self.guidance_scale)
            drawn.append(Drawn(number, candidate, strength))
            try:
                images.append(self._image(row, drawn[-1]))
            except NotFiniteError as error:
                return failed(error)
        finite = np.ones(len(images), bool)
        return decide(row, task, drawn, np.stack(images), finite, row.picture, self.config.pixel_threshold)

    def _image(self, row: EditRequest, drawn: Drawn) -> np.ndarray:
        task = self.tasks[row.turn.task]
        asked = InstructionEdit(
            row.picture,
            row.turn.row["instruction"],
            task.name,
            derive_seed(row.turn.seed, "candidate", drawn.number),
            drawn.strength.guidance_scale,
            row.turn.region.edit_mask(task.region, drawn.candidate.mask),
        )
        return self.editor.edit(asked, self._tied)

    def _tied(
        self, step: int, steps: int, latents: torch.Tensor, known: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        if self.config.fusion == "none":
            return latents
        return fuse(latents, known, mask, self.config.fusion, step, steps)


def load_editor(config: EditorConfig) -> InstructionEditor:
    """Load an editor trained here, or a pipeline of diffusers.

    Raises:
        ValueError: it is another model. The message names the manifest key.
        OSError: it cannot be read.
    """
    folder = folder_of(config)
    if folder is not None and (folder / TASKS_FOLDER).is_dir():
        from stages.models.editors.trained_here import TrainedHere

        return TrainedHere(config)
    from stages.models.editors.pipelines import PipelineEditor

    return PipelineEditor(config)
