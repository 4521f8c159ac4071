"""Control of joint attention, in which text and picture share one softmax.

See docs/prompt-to-prompt.md, section 11. ``edit.control`` says what an edit takes while its gate is open. X
is the text, I the picture, t the edit's row and s its source's:

    qk   O   = SDPA([Q_X,t ; Q_I,s], [K_X,t ; K_I,s], V_t)
    kv   O   = SDPA(Q_t, [K_X,t ; K_I,s], [V_X,t ; V_I,s])
    p2p  O_I = P_edit V_t,    O_X = SDPA(Q_X,t, K_t, V_t)

qk is that of Shin et al. 2025 and ConsistEdit 2025, kv that of Stable Flow 2024. With both, rows of the map
stay normalised, no token map is needed, and it is one call; they act on unconditional rows too. p2p's map
(:mod:`stages.edit.prompt_to_prompt.joint_maps`) acts on conditional rows alone. If the source is an edit
itself, it lends what it uses.

Mixing outputs by the mask does not make the outside the source's inside the network, because a row's own
prompt modulates all its tokens. With ``hold``, tokens that the fusion keeps at the source's are its source's
in every block: their keys and values here, their states after the block. All other tokens are the edit's own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention as sdpa

from stages.edit.prompt_to_prompt.joint_control import JointControl
from stages.edit.prompt_to_prompt.joint_maps import ControlledMaps, attend
from stages.edit.prompt_to_prompt.outside import held, mix_outside


class JointAttention:
    """Computes the joint attention of all layers of a network. Without a control it is plain attention.

    Args:
        hold: whether tokens that are not active are held at the source's.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.control: JointControl | None = None
        self.hold = hold
        self.block = 0
        """The block whose layers are computed."""

    def install(self, network: Any) -> None:
        """Take part in a network of :mod:`stages.models.diffusion.families`."""
        network.install(self)
        for number, block in enumerate(network.blocks):
            block.register_forward_pre_hook(self._entering(number))
            if self.hold:
                block.register_forward_hook(self._after_block)

    def _entering(self, number: int) -> Callable[[Any, Any], None]:
        def entered(block: Any, given: Any) -> None:
            self.block = number

        return entered

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
        inactive = control.inactive(query.shape[2] - text_tokens) if self.hold else None
        if inactive is not None:
            key, value = (_with_held(inactive, control, each, text_tokens) for each in (key, value))
        if control.kind == "p2p":
            output = self._by_maps(query, key, value, text_tokens, control)
        else:
            output = self._by_pictures(query, key, value, text_tokens, control)
        if control.mask_for(query.shape[2] - text_tokens) is None:
            return output
        text, picture = output.tensor_split([text_tokens], 2)
        mixed = mix_outside(picture.transpose(1, 2).flatten(2), control)
        return torch.cat([text, mixed.unflatten(2, (output.shape[1], -1)).transpose(1, 2)], 2)

    def _by_pictures(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        text_tokens: int,
        control: JointControl,
    ) -> torch.Tensor:
        """qk and kv: the picture's heads of an edit are another row's."""
        if control.opens[self.block]:
            rows = control.rows[self.block]
            key = _with_picture_of(rows, key, text_tokens)
            if control.kind == "qk":
                query = _with_picture_of(rows, query, text_tokens)
            else:
                value = _with_picture_of(rows, value, text_tokens)
        if control.blending and text_tokens:
            picture = query[:, :, text_tokens:]
            for rows, words, maps in (
                (control.cond_edits, control.target_words, control.target_maps),
                (control.source_rows + control.halves[-1], control.source_words, control.source_maps),
            ):
                followed = attend(picture[rows], key[rows], _indicator(words, query))
                maps.add_(followed[..., 0].sum(1))
        return sdpa(query, key, value)

    def _by_maps(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        text_tokens: int,
        control: JointControl,
    ) -> torch.Tensor:
        """p2p: an edit's picture has the mixed map; its text, and all other rows, have their own."""
        if not control.opens[self.block] and not control.blending:
            return sdpa(query, key, value)
        edits, width = control.cond_edits, value.shape[-1]
        maps, values = ControlledMaps(query, key, text_tokens, control, self.block), value[edits]
        following = control.blending and text_tokens > 0
        if following:
            values = torch.cat([values, _indicator(control.target_words, query)], -1)
        pictures = maps.of_edits(values)
        if following:
            words = maps.of_sources(_indicator(control.source_words, query))
            for followed, summed in (
                (pictures[..., width], control.target_maps),
                (words[..., 0], control.source_maps),
            ):
                summed.add_(followed.sum(1))
        output, others = torch.empty_like(value), control.other_rows
        output[others] = sdpa(query[others], key[others], value[others])
        output[edits, :, text_tokens:] = pictures[..., :width]
        if text_tokens:
            output[edits, :, :text_tokens] = sdpa(query[edits, :, :text_tokens], key[edits], value[edits])
        return output


def _indicator(words: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Values [E,heads,T+N,1] for tokens ``words`` [E,T]: ``P u`` is the attention to them."""
    column = functional.pad(words, (0, like.shape[2] - words.shape[1]))
    return column[:, None, :, None].expand(-1, like.shape[1], -1, -1)


def _with_picture_of(rows: torch.Tensor, heads: torch.Tensor, text_tokens: int) -> torch.Tensor:
    """Heads [R,heads,T+N,D], the picture's tokens of each row taken from another row."""
    text, picture = heads.tensor_split([text_tokens], 2)
    return torch.cat([text, picture.index_select(0, rows)], 2)


def _with_held(
    inactive: torch.Tensor, control: JointControl, heads: torch.Tensor, text_tokens: int
) -> torch.Tensor:
    """Keys or values [R,heads,T+N,D], those of the picture's inactive tokens the source's."""
    text, picture = heads.tensor_split([text_tokens], 2)
    return torch.cat([text, held(picture, control, inactive[:, None])], 2)
