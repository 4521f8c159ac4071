"""The layers of a U-Net that see more than one token: 3x3 convolutions, group norms and upsampling.

Each stands in its layer's place. Lists of tokens [R,L,C] pass between the layers as feature maps [R,C,L,1];
layers that see one token at a time compute them unchanged.
"""

from typing import cast

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from stages.edit.sparse.calls import Call, Moves
from stages.edit.sparse.group_norm import Moments, moments, normalise, pasted
from stages.edit.sparse.neighbours import Kind
from stages.edit.sparse.state import Mode, State

PICTURES = 16
"""With fewer pictures, torch computes a 1x1 convolution on one thread without oneDNN."""


def tokens_of(features: torch.Tensor) -> torch.Tensor:
    """[R,C,h,w] to [R,h*w,C]; no copy if the channels come last in memory."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def features_of(tokens: torch.Tensor) -> torch.Tensor:
    """[R,L,C] to [R,C,L,1], without a copy and with the channels last in memory."""
    return tokens.unsqueeze(2).permute(0, 3, 1, 2)


def multiplied(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A linear layer of rows [n,K], on a CPU as a 1x1 convolution of at least 16 pictures.

    torch computes these with oneDNN, and linear layers with MKL, which is half as fast on AMD's processors.
    """
    if rows.device.type != "cpu" or len(rows) % PICTURES:
        return functional.linear(rows, weight, bias)
    pictures = rows.view(PICTURES, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)
    return functional.conv2d(pictures, weight[:, :, None, None], bias).permute(0, 2, 3, 1).flatten(0, 2)


def take(stored: torch.Tensor, moves: Moves | None, own: torch.Tensor) -> None:
    """Put a carrier's own tokens [R,L,...] into the places [S,...] that stored its root's."""
    if moves is not None:
        places, rows = moves
        stored.index_copy_(0, places, own.flatten(0, 1).index_select(0, rows))


class SparseConv(nn.Module):
    """A 3x3 convolution. For a list, it gathers nine neighbours for each output and multiplies once."""

    def __init__(self, name: str, conv: nn.Conv2d, state: State, *, upsamples: bool = False) -> None:
        super().__init__()
        self.name, self.conv, self.state, self.upsamples = name, conv, state, upsamples

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        state = self.state
        if state.mode is Mode.SOURCES:
            level = state.level_of(features)
            kind = Kind(level, self.conv.stride[0], self.upsamples)
            tokens = tokens_of(features).flatten(0, 1)
            state.memory[self.name] = kind, tokens.index_select(0, state.step.stored[level])
        else:
            kind, stored = state.memory[self.name]
            take(stored, state.present.taken[kind.level], tokens_of(features))
            if state.present.lists is not None:
                return self._of_lists(tokens_of(features), stored, state.present.gathers[kind])
        if self.upsamples:
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
        return cast(torch.Tensor, self.conv(features))

    def _of_lists(self, own: torch.Tensor, stored: torch.Tensor, gather: torch.Tensor) -> torch.Tensor:
        table = torch.cat([stored, own.flatten(0, 1), own.new_zeros(1, own.shape[2])])
        # A view, because the weights are kept with the channels last.
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)
        gathered = table.index_select(0, gather).view(-1, weight.shape[1])
        outputs = multiplied(gathered, weight, self.conv.bias)
        return features_of(outputs.view(len(own), -1, len(weight)))


class SparseGroupNorm(nn.Module):
    """A group norm. For a list, it uses the statistics of the picture in which the list is pasted."""

    def __init__(self, name: str, norm: nn.GroupNorm, state: State) -> None:
        super().__init__()
        self.name, self.norm, self.state = name, norm, state

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        state = self.state
        if state.mode is Mode.SOURCES:
            self._store(tokens_of(features), state.level_of(features))
        else:
            own, call = tokens_of(features), state.present
            if call.lists is not None or call.carried is not None:
                given = self._given(own, call)
                self._carry(own, given, call)
            if call.lists is not None:
                return features_of(normalise(own, given, self.norm))
        return cast(torch.Tensor, self.norm(features))

    def _store(self, tokens: torch.Tensor, level: int) -> None:
        """Keep the roots' moments, and for each call the tokens that its lists replace, or their moments.

        A compiled network keeps all tokens instead.
        """
        state, groups = self.state, self.norm.num_groups
        whole = moments(tokens, groups).of(state.roots)
        if state.compiled:
            state.memory[self.name] = level, whole, tokens
            return
        olds: dict[int, torch.Tensor | Moments] = {}
        for turn, calls in enumerate(state.step.turns):
            for call in calls:
                if call.lists is not None:
                    old = tokens[state.roots[call.origins][:, None], call.tokens(level)]
                    # Later turns replace tokens that a carrier may still take.
                    olds[call.number] = old if turn else moments(old, groups)
        state.memory[self.name] = level, whole, olds

    def _given(self, own: torch.Tensor, call: Call) -> Moments:
        """The moments of the pictures with the call's tokens in them."""
        groups, (level, whole, olds) = self.norm.num_groups, self.state.memory[self.name]
        new = moments(own, groups)
        if call.lists is None:
            return new
        if isinstance(olds, torch.Tensor):
            old = olds[call.origins[:, None], call.tokens(level)]
        else:
            old = olds[call.number]
        return pasted(whole.of(call.origins), old if isinstance(old, Moments) else moments(old, groups), new)

    def _carry(self, own: torch.Tensor, given: Moments, call: Call) -> None:
        """Later turns see the call's carriers with the call's tokens in them."""
        if call.carried is None:
            return
        level, whole, olds = self.state.memory[self.name]
        pictures, rows = call.carried
        whole.mean[pictures], whole.deviation[pictures] = given.mean[rows], given.deviation[rows]
        for number, moves in call.replaced.items():
            take(olds[number].flatten(0, 1), moves[level], own)


class SparseUpsample(nn.Module):
    """Doubles the side and convolves. A list is not doubled: its convolution gathers the coarser tokens."""

    def __init__(self, name: str, upsample: Upsample2D, state: State) -> None:
        super().__init__()
        self.conv = SparseConv(name, cast(nn.Conv2d, upsample.conv), state, upsamples=True)

    def forward(self, features: torch.Tensor, output_size: object = None) -> torch.Tensor:
        return cast(torch.Tensor, self.conv(features))
