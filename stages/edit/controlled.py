"""A diffusion model whose attention an edit controls: a U-Net, or a transformer with joint attention."""

from typing import Any, Protocol

import torch

from stages.edit.config import EditConfig
from stages.edit.prompt_to_prompt.attention import install
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.joint import JointAttention
from stages.edit.sparse.joint import SparseTransformer
from stages.edit.sparse.token_lists import Size
from stages.edit.sparse.unet import SparseUNet
from stages.models.diffusion.model import Diffusion


class Controlled(Protocol):
    """A model with control of its attention.

    ``joint``: whether text and picture share one attention. ``sparse``: whether it can compute edits in their
    regions.
    """

    joint: bool

    @property
    def sparse(self) -> bool: ...

    def costs(self, mask: torch.Tensor, size: Size) -> list[float]:
        """What edits cost in their regions, as shares of the same edits computed whole; if ``sparse``.

        Args:
            mask: M [E,1,H,W] in [0,1], on the CPU.
            size: rows and columns of the latents.
        """
        ...

    def begin(self, control: PromptToPrompt, size: Size) -> None:
        """Prepare a batch.

        Args:
            control: its control.
            size: rows and columns of the latents.
        """
        ...


class ControlledUNet:
    """A U-Net. ``edit.region`` puts a :class:`stages.edit.sparse.unet.SparseUNet` in its place."""

    joint = False

    def __init__(self, model: Diffusion, config: EditConfig) -> None:
        self._config, self._layers = config, []
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

    def begin(self, control: PromptToPrompt, size: Size) -> None:
        for layer in self._layers:
            layer.control = control
        if self._sparse is not None:
            self._sparse.begin(control, size)


class ControlledTransformer:
    """A transformer with joint attention.

    ``edit.region`` puts a :class:`stages.edit.sparse.joint.SparseTransformer` in its place. Later turns of
    sessions are drawn whole.
    """

    joint = True

    def __init__(self, model: Diffusion, config: EditConfig) -> None:
        network = model.family.network
        self._config, self._text_tokens = config, model.prompts.context_length
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

    def begin(self, control: PromptToPrompt, size: Size) -> None:
        sparse = self.sparse and len(control.turns) == 1
        self._attention.control = None if sparse else control
        if self._sparse is not None:
            self._sparse.begin(control if sparse else None, self._sparse.network.grid(size))


def controlled(model: Diffusion, config: EditConfig) -> Controlled:
    """Take control of a loaded model's attention.

    Raises:
        ValueError: ``edit.self_max_tokens`` is below the tokens of every layer of a U-Net.
    """
    kind = ControlledUNet if model.family.name == "unet" else ControlledTransformer
    return kind(model, config)


def smallest_attention(unet: Any) -> int:
    """Number of tokens of the U-Net's smallest self-attention layer, which is in its middle block."""
    side = unet.config.sample_size // 2 ** (len(unet.config.block_out_channels) - 1)
    return int(side * side)
