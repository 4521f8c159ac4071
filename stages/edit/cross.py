"""A transformer with cross-attention (PixArt, Sana) whose attention an edit controls, as a U-Net's."""

from collections.abc import Sequence
from typing import Any

import torch

from stages.edit.config import EditConfig, Kind
from stages.edit.prompt_to_prompt.attention import attend, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.outside import held
from stages.edit.sparse.token_lists import Size
from stages.models.diffusion.families.cross import linear_attention
from stages.models.diffusion.model import Diffusion


class ControlledCrossTransformer:
    """:class:`stages.edit.controlled.Controlled`. All layers have the tokens of the picture, none is smaller.

    With ``edit.hold``, the states of tokens that the fusion keeps at the source's are the source's after
    every block. Their keys and values in the next block follow from these, because no prompt modulates them.
    """

    joint: Kind | None = None
    blocks, sparse = 0, False

    def __init__(self, model: Diffusion, config: EditConfig) -> None:
        self._model, self._config, network = model, config, model.family.network
        self._control: PromptToPrompt | None = None
        self._layers = install(network.transformer, linear_attention if network.linear else attend)
        if config.hold == "exact":
            for block in network.blocks:
                block.register_forward_hook(self._after_block)

    def _after_block(self, block: Any, given: Any, states: torch.Tensor) -> torch.Tensor:
        """The picture's states [R,N,C] after a block, inactive tokens held."""
        inactive = None if self._control is None else self._control.inactive(states.shape[1])
        if self._control is None or inactive is None:
            return states
        return held(states, self._control, inactive)

    def costs(self, mask: torch.Tensor, size: Size) -> list[float]:
        """All edits are computed whole."""
        return [1.0] * len(mask)

    def begin(self, edits: Sequence[EditRow], sources: int, size: Size, sparse: bool) -> PromptToPrompt:
        model, config = self._model, self._config
        tokens = size[0] * size[1] // model.family.multiple**2
        self._control = PromptToPrompt(
            edits,
            sources,
            config.diffusion.steps,
            tokens,
            model.device,
            model.dtype,
            guided=model.guided,
            mask_attention=config.mask_attention,
            fusion=config.fusion,
            blend_tokens=tokens,
        )
        for layer in self._layers:
            layer.control = self._control
        return self._control
