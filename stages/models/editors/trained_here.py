"""An editor trained with ``editpairs train``: it is told the task of an instruction too.

The one place where the stages know the editor's package; a manifest has to name such an editor.
"""

from dataclasses import replace

import numpy as np

from stages.base import Weights
from stages.models.editors import AfterStep, EditorConfig, InstructionEdit
from stages.models.editors.folder import KEY


class TrainedHere:
    """An editor of this project. Its sampling is not joined: the outside is pasted, not held."""

    def __init__(self, config: EditorConfig) -> None:
        import torch

        from editor.model.loading import load_editor, load_guidance
        from editor.model.network import Guidance

        weights = Weights(model=config.model, revision=config.revision)
        self.network = load_editor(weights, KEY, getattr(torch, config.dtype))
        own = load_guidance(weights.path) if weights.path is not None else Guidance()
        image = own.image if config.image_guidance_scale is None else config.image_guidance_scale
        self.guidance = Guidance(config.guidance_scale, image, config.steps)

    def edit(self, asked: InstructionEdit, after_step: AfterStep) -> np.ndarray:
        """See :class:`stages.models.editors.InstructionEditor`."""
        guidance = replace(self.guidance, text=asked.guidance_scale)
        vectors = self.network.vectors([self.network.table.row(asked.task)])
        latents = self.network.encode(asked.picture[None])
        return self.network.edit(latents, [asked.instruction], vectors, guidance, [asked.seed])[0]
