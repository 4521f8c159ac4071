"""What the families of transformers with cross-attention, to text with a mask, have in common."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from stages.models.diffusion.families.base import Configured, Masked, Transformer


class CrossNetwork(Transformer):
    """A transformer with a U-Net's call. Its attention layers are diffusers' ``Attention``.

    ``linear``: whether its self-attention is linear (:func:`linear_attention`).
    """

    linear = False

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks in order; each returns the picture's states [R,N,C]."""
        return [*self.transformer.transformer_blocks]

    def told(self, timestep: torch.Tensor) -> Mapping[str, Any]:
        """What the transformer is told besides latents and text; the time of all rows [R]."""
        return {"timestep": timestep}

    def forward(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> SimpleNamespace:
        """The prediction for latents [R,c,h,w].

        Args:
            timestep: 0 to 1000, of all rows.
            states: of the text [R,T,d].
            timestep_cond: not used; other families are told their guidance by it.
            added_cond_kwargs: ``mask``, which tokens of the text are no padding [R,T].
        """
        assert added_cond_kwargs is not None
        (drawn,) = self.transformer(
            rows,
            encoder_hidden_states=states,
            encoder_attention_mask=added_cond_kwargs["mask"],
            return_dict=False,
            **self.told(timestep.expand(len(rows))),
        )
        # A model that was trained to predict variances too has them in the second half of its channels.
        return SimpleNamespace(sample=drawn[:, : rows.shape[1]])


class CrossFamily(Configured, Masked):
    """A family with such a network, which is guided."""

    takes_guidance = True


def linear_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Linear attention on heads [R,heads,N,D] (Sana): rectified products in place of a softmax.

    In float32 at least, as diffusers computes it; it has no scale.
    """
    exact = torch.promote_types(value.dtype, torch.float32)
    query, key = query.relu().to(exact), key.relu().to(exact)
    widened = nn.functional.pad(value.to(exact), (0, 1), value=1)
    output = query @ (key.transpose(2, 3) @ widened)
    return (output[..., :-1] / (output[..., -1:] + 1e-15)).to(value.dtype)
