"""What :class:`stages.models.diffusion.model.Diffusion` asks of a model; nothing else knows a model.

Latents are spatial, [n,c,h,w], between the sampling steps, whatever a model does with them inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.prompts import Embeddings
from stages.models.diffusion.sampler import classifier_free


@dataclass(frozen=True)
class Conditions:
    """What a network is told besides latents and time, in the order of its rows.

    Attributes:
        states: states of the prompts' tokens [L,T,d].
        unconditional: those of the unconditional rows [L,T,d]; None without classifier-free guidance.
        added: further conditions by name, one row for each row of the network.
        guidance: embedded guidance, one row for each picture; None if the network takes none.
    """

    states: torch.Tensor
    unconditional: torch.Tensor | None = None
    added: Mapping[str, torch.Tensor] | None = None
    guidance: torch.Tensor | None = None


class Classic:
    """What most families have: classifier-free guidance as published, and prompts read alone."""

    prompts: Any

    def encode(self, prompts: list[str], pairs: Sequence[tuple[str, ...]]) -> Embeddings:
        return self.prompts.encode(prompts)

    def unwanted(self, prompt: str) -> Embeddings:
        return self.prompts.encode([prompt]) if prompt else self.prompts.empty

    def scheduler_options(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def fits(self, prompt: str, pair: tuple[str, ...]) -> bool:
        return self.prompts.fits(prompt)

    def guided(
        self, unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        return classifier_free(unconditional, conditional, scale)


class Transformer(nn.Module):
    """diffusers' transformer, for families that give it a U-Net's call."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    @property
    def config(self) -> Any:
        """The transformer's configuration."""
        return self.transformer.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self.transformer.dtype


class Configured:
    """A family whose sizes are in the configuration of its network, a transformer."""

    network: Any

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels)

    @property
    def side(self) -> int:
        return int(self.network.config.sample_size)

    @property
    def multiple(self) -> int:
        return int(self.network.config.patch_size)


def conditions_by(
    name: Literal["mask", "pooled"], prompts: Embeddings, unwanted: Embeddings | None
) -> Conditions:
    """The conditions of a network that is told of prompts their states and one more of their tensors."""
    told = getattr(prompts, name)
    if unwanted is None:
        return Conditions(prompts.states, None, {name: told})
    return Conditions(prompts.states, unwanted.states, {name: torch.cat([getattr(unwanted, name), told])})


class Masked(Classic):
    """A family whose network is told nothing of prompts but their states and ``mask`` [R,T]."""

    def conditions(
        self,
        prompts: Embeddings,
        unwanted: Embeddings | None,
        guidance_scale: torch.Tensor,
        latents: torch.Tensor,
    ) -> Conditions:
        return conditions_by("mask", prompts, unwanted)


class Family(Protocol):
    """A loaded model of one family.

    Attributes:
        network: predicts from latents; called as :func:`stages.models.diffusion.sampler.sample` says.
        prompts: its text encoders, with ``encode``, ``fits``, ``segments`` and ``context_length`` as
            :class:`stages.models.diffusion.prompts.PromptEncoder` has them, and ``empty`` if
            ``takes_guidance``.
    """

    name: FamilyName
    network: Any
    prompts: Any

    @property
    def takes_guidance(self) -> bool:
        """Whether classifier-free guidance is possible, with unconditional rows."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        ...

    @property
    def side(self) -> int:
        """The side in latents of the pictures that the model was trained on."""
        ...

    @property
    def multiple(self) -> int:
        """The number of latents by which both sides must be divisible."""
        ...

    def encode(self, prompts: list[str], pairs: Sequence[tuple[str, ...]]) -> Embeddings:
        """Encode n prompts; a row's pair has the captions that it is first drawn and edited with."""
        ...

    def unwanted(self, prompt: str) -> Embeddings:
        """Encode the prompt of unconditional rows [1,T,d]."""
        ...

    def scheduler_options(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Settings of a sampler's scheduler that the published one's configuration has by other names."""
        ...

    def fits(self, prompt: str, pair: tuple[str, ...]) -> bool:
        """Whether a prompt can be encoded for a row with a pair of captions."""
        ...

    def guided(
        self, unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """One prediction [L,c,h,w] of two; see :data:`stages.models.diffusion.sampler.Guided`."""
        ...

    def schedule(self, scheduler: Any, steps: int, latents: torch.Tensor) -> Mapping[str, Any]:
        """The arguments of the scheduler's ``set_timesteps``, for latents [L,c,h,w]."""
        ...

    def conditions(
        self,
        prompts: Embeddings,
        unwanted: Embeddings | None,
        guidance_scale: torch.Tensor,
        latents: torch.Tensor,
    ) -> Conditions:
        """What the network is told for latents [L,c,h,w].

        Args:
            prompts: one for each picture.
            unwanted: the prompts of unconditional rows, as many; None: there are no such rows.
            guidance_scale: [L].
            latents: for their size.
        """
        ...
