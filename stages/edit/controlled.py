"""A diffusion model whose attention an edit controls: a U-Net, or a transformer with joint attention."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from stages.edit.config import EditConfig, Kind
from stages.edit.cross import ControlledCrossTransformer
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.sparse.joint import SparseTransformer
from stages.edit.sparse.token_lists import Size
from stages.edit.sparse.unet import SparseUNet
from stages.models.diffusion.families import CROSS
from stages.models.diffusion.model import Diffusion


class Controlled(Protocol):
    """A model with control of its attention.

    ``joint``: what edits take if text and picture share one attention, else None. ``blocks``: number of a
    transformer's blocks; 0 for a U-Net. ``sparse``: whether it can compute edits in their regions.
    """

    joint: Kind | None
    blocks: int

    @property
    def sparse(self) -> bool: ...

    def costs(self, mask: torch.Tensor, size: Size) -> list[float]:
        """What edits cost in their regions, as shares of the same edits computed whole; if ``sparse``.

        Args:
            mask: M [E,1,H,W] in [0,1], on the CPU.
            size: rows and columns of the latents.
        """
        ...

    def begin(self, edits: Sequence[EditRow], sources: int, size: Size, sparse: bool) -> PromptToPrompt:
        """Prepare a batch. Returns its control.

        Args:
            edits: in batch order.
            sources: number of source rows.
            size: rows and columns of the latents.
            sparse: whether its edits are computed in their regions; a U-Net computes all in one way.
        """
        ...


class ControlledUNet:
    """A U-Net. ``edit.region`` puts a :class:`stages.edit.sparse.unet.SparseUNet` in its place."""

    joint: Kind | None = None
    blocks = 0

    def __init__(self, model: Diffusion, config: EditConfig) -> None:
        self._model, self._config, self._layers = model, config, []
        self._sparse: SparseUNet | None = None
        if config.region == "whole":
            self._layers = install(model.unet)
        else:
            unet = getattr(model.unet, "_orig_mod", model.unet)  # it is compiled call by call
            self._sparse = SparseUNet(
                unet, config.region, config.region_halo, compiled=config.diffusion.compile
            )
            model.unet = self._sparse
        smallest = smallest_attention(model.unet)
        if smallest > config.self_max_tokens:
            raise ValueError(
                f"edit.self_max_tokens is {config.self_max_tokens}, but the U-Net's smallest "
                f"self-attention has {smallest} tokens: raise it, or no self-attention is controlled"
            )

    @property
    def sparse(self) -> bool:
        return self._sparse is not None

    def costs(self, mask: torch.Tensor, size: Size) -> list[float]:
        assert self._sparse is not None
        return self._sparse.costs(mask, self._config.fusion, self._config.diffusion.steps, size)

    def begin(self, edits: Sequence[EditRow], sources: int, size: Size, sparse: bool) -> PromptToPrompt:
        model, config = self._model, self._config
        area = size[0] * size[1] / model.family.side**2
        control = PromptToPrompt(
            edits,
            sources,
            config.diffusion.steps,
            math.floor(config.self_max_tokens * area),
            model.device,
            model.dtype,
            guided=model.guided,
            mask_attention=config.mask_attention,
            fusion=config.fusion,
            blend_tokens=round(config.blend_tokens * area),
            compiled=config.diffusion.compile,
        )
        if self._sparse is not None:
            self._sparse.begin(control, size)
        else:
            begin(self._layers, control)
        return control


class ControlledTransformer:
    """A transformer with joint attention.

    ``edit.region`` puts a :class:`stages.edit.sparse.joint.SparseTransformer` in its place. Later turns of
    sessions are drawn whole.
    """

    def __init__(self, model: Diffusion, config: EditConfig) -> None:
        self._model, self._config = model, config
        self.kind: Kind = config.control or "qk"
        self.joint: Kind | None = self.kind
        network = model.family.network
        self._text_tokens = sum(each.length for each in model.prompts.segments)
        self.blocks = len(network.blocks)
        self._attention = JointAttention(hold=config.hold == "exact")
        self._attention.install(network)
        self._sparse: SparseTransformer | None = None
        if config.region != "whole":
            self._sparse = model.family.network = SparseTransformer(network, self._attention)

    @property
    def sparse(self) -> bool:
        return self._sparse is not None

    def costs(self, mask: torch.Tensor, size: Size) -> list[float]:
        assert self._sparse is not None
        config, tokens = self._config, self._sparse.network.grid(size)
        return self._sparse.costs(mask, config.fusion, config.diffusion.steps, tokens, self._text_tokens)

    def begin(self, edits: Sequence[EditRow], sources: int, size: Size, sparse: bool) -> PromptToPrompt:
        model, config = self._model, self._config
        control = JointControl(
            edits,
            sources,
            config.diffusion.steps,
            self.kind,
            size[0] * size[1] // model.family.multiple**2,
            model.device,
            model.dtype,
            guided=model.guided,
            mask_attention=config.mask_attention,
            fusion=config.fusion,
            compiled=config.diffusion.compile,
        )
        sparse = sparse and len(control.turns) == 1
        self._attention.control = None if sparse else control
        if self._sparse is not None:
            self._sparse.begin(control if sparse else None, self._sparse.network.grid(size))
        return control


def controlled(model: Diffusion, config: EditConfig) -> Controlled:
    """Take control of a loaded model's attention.

    Raises:
        ValueError: ``edit.self_max_tokens`` is below the tokens of every layer of a U-Net.
    """
    if model.family.name in CROSS:
        return ControlledCrossTransformer(model, config)
    kind = ControlledUNet if model.family.name == "unet" else ControlledTransformer
    return kind(model, config)


def smallest_attention(unet: Any) -> int:
    """Number of tokens of the U-Net's smallest self-attention layer, which is in its middle block."""
    side = unet.config.sample_size // 2 ** (len(unet.config.block_out_channels) - 1)
    return int(side * side)
