"""The layers of a U-Net that see more than one token: 3x3 convolutions, group norms and upsampling.

Each stands in its layer's place. Lists of tokens [R,L,C] pass between the layers as feature maps [R,C,L,1];
layers that see one token at a time compute them unchanged.
"""

from typing import cast

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

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


class SparseConv(nn.Module):
    """A 3x3 convolution. For a list, it gathers nine neighbours for each output and multiplies once."""

    def __init__(self, name: str, conv: nn.Conv2d, state: State, *, upsamples: bool = False) -> None:
        super().__init__()
        self.name, self.conv, self.state, self.upsamples = name, conv, state, upsamples

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        state = self.state
        if state.lists is not None:
            return self._of_lists(features)
        if state.mode is Mode.SOURCES:
            assert state.plan is not None
            level = state.level_of(features)
            rows = tokens_of(features).flatten(0, 1)
            kind = Kind(level, self.conv.stride[0], self.upsamples)
            state.memory[self.name] = kind, rows.index_select(0, state.plan.stored[level])
        if self.upsamples:
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
        return cast(torch.Tensor, self.conv(features))

    def _of_lists(self, features: torch.Tensor) -> torch.Tensor:
        own = tokens_of(features)
        kind, stored = self.state.memory[self.name]
        assert self.state.call is not None
        table = torch.cat([stored, own.flatten(0, 1), own.new_zeros(1, own.shape[2])])
        gathered = table.index_select(0, self.state.call.gathers[kind])
        # A view, because the weights are kept with the channels last.
        weight = self.conv.weight.permute(0, 2, 3, 1).flatten(1)
        outputs = multiplied(gathered.view(-1, weight.shape[1]), weight, self.conv.bias)
        return features_of(outputs.view(len(own), -1, len(weight)))


class SparseGroupNorm(nn.Module):
    """A group norm. For a list, it uses the statistics of the source with the list pasted."""

    def __init__(self, name: str, norm: nn.GroupNorm, state: State) -> None:
        super().__init__()
        self.name, self.norm, self.state = name, norm, state

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        state = self.state
        if state.lists is not None:
            return self._of_lists(features)
        if state.mode is Mode.SOURCES:
            state.memory[self.name] = self._stored(features)
        return cast(torch.Tensor, self.norm(features))

    def _stored(self, features: torch.Tensor) -> tuple[Moments, list[Moments | None]]:
        """The sources' moments, and for each call those of the tokens that its lists replace."""
        state, tokens, groups = self.state, tokens_of(features), self.norm.num_groups
        assert state.plan is not None
        level = state.level_of(features)
        replaced: list[Moments | None] = []
        for call in state.plan.calls:
            if call.lists is None:
                replaced.append(None)
                continue
            chosen = call.lists[level].repeat(len(call.sources) // len(call.edits), 1)
            replaced.append(moments(tokens[call.sources[:, None], chosen], groups))
        return moments(tokens, groups), replaced

    def _of_lists(self, features: torch.Tensor) -> torch.Tensor:
        own, state = tokens_of(features), self.state
        assert state.call is not None
        whole, replaced = state.memory[self.name]
        rows = state.call.sources
        theirs = Moments(whole.mean[rows], whole.deviation[rows], whole.count)
        given = pasted(theirs, replaced[state.number], moments(own, self.norm.num_groups))
        return features_of(normalise(own, given, self.norm))


class SparseUpsample(nn.Module):
    """Doubles the side and convolves. A list is not doubled: its convolution gathers the coarser tokens."""

    def __init__(self, name: str, upsample: Upsample2D, state: State) -> None:
        super().__init__()
        self.conv = SparseConv(name, cast(nn.Conv2d, upsample.conv), state, upsamples=True)

    def forward(self, features: torch.Tensor, output_size: object = None) -> torch.Tensor:
        return cast(torch.Tensor, self.conv(features))
