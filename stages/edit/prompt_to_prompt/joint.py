"""Control of joint attention, in which text and picture share one softmax.

See docs/prompt-to-prompt.md, section 11.

While its gate is open, an edit's picture queries and keys are its source's. Its text's queries and keys, and
all its values, are its own (Shin et al. 2025):

    O = SDPA([Q_X,t ; Q_I,s], [K_X,t ; K_I,s], V_t)

Rows of the map stay normalised, no token map is needed, and it is one call. If the source is an edit itself,
its own queries and keys are those that it uses.

Mixing outputs by the mask does not make the outside the source's inside the network, because a row's own
prompt modulates all its tokens. With ``hold``, tokens that the fusion keeps at the source's are its source's
in every block: their keys and values here, their states after the block. All other tokens are the edit's own.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.outside import held, mix_outside


class JointAttention:
    """Computes the joint attention of all layers of a network. Without a control it is plain attention.

    ``hold``: whether tokens that are not active are held at the source's.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.control: PromptToPrompt | None = None
        self.hold = hold

    def install(self, network: Any) -> None:
        """Take part in a network of :mod:`stages.models.diffusion.families`."""
        network.install(self)
        if self.hold:
            for block in network.blocks:
                block.register_forward_hook(self._after_block)

    def _after_block(
        self, block: Any, given: Any, states: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The states of text [R,T,C] and picture [R,N,C] after a block, inactive tokens held."""
        text, picture = states
        inactive = None if self.control is None else self.control.inactive(picture.shape[1])
        if self.control is None or inactive is None:
            return states
        return text, held(picture, self.control, inactive)

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, text_tokens: int
    ) -> torch.Tensor:
        """The output [R,heads,T+N,D] for heads of the same shape; the first T = ``text_tokens`` are text."""
        control = self.control
        if control is None:
            return sdpa(query, key, value)
        if control.self_open:
            query, key = (_with_picture_of(control.query_rows, each, text_tokens) for each in (query, key))
        inactive = control.inactive(query.shape[2] - text_tokens) if self.hold else None
        if inactive is not None:
            key, value = (_with_held(inactive, control, each, text_tokens) for each in (key, value))
        output = sdpa(query, key, value)
        if control.mask_for(query.shape[2] - text_tokens) is None:
            return output
        text, picture = output.tensor_split([text_tokens], 2)
        mixed = mix_outside(picture.transpose(1, 2).flatten(2), control)
        return torch.cat([text, mixed.unflatten(2, (output.shape[1], -1)).transpose(1, 2)], 2)


def _with_picture_of(rows: torch.Tensor, heads: torch.Tensor, text_tokens: int) -> torch.Tensor:
    """Heads [R,heads,T+N,D], the picture's tokens of each row taken from another row."""
    text, picture = heads.tensor_split([text_tokens], 2)
    return torch.cat([text, picture.index_select(0, rows)], 2)


def _with_held(
    inactive: torch.Tensor, control: PromptToPrompt, heads: torch.Tensor, text_tokens: int
) -> torch.Tensor:
    """Keys or values [R,heads,T+N,D], those of the picture's inactive tokens the source's."""
    text, picture = heads.tensor_split([text_tokens], 2)
    return torch.cat([text, held(picture, control, inactive[:, None])], 2)
