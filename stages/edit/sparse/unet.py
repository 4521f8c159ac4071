"""A U-Net that computes sources whole and edits as lists of tokens, with a U-Net's own call signature."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.models.upsampling import Upsample2D
from torch import nn

from stages.edit.prompt_to_prompt.attention import PromptToPromptAttention, begin
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.sparse.attention import SparseAttention
from stages.edit.sparse.batch import Batch
from stages.edit.sparse.calls import Call, StepPlan
from stages.edit.sparse.conditions import Conditions
from stages.edit.sparse.layers import SparseConv, SparseGroupNorm, SparseUpsample
from stages.edit.sparse.plan import plan_step
from stages.edit.sparse.state import Mode, State
from stages.edit.sparse.steps import plan_steps
from stages.edit.sparse.token_lists import Size, level_sizes

Region = Literal["support", "schedule"]
"""Where an edit is computed: where M > 0, or in each step where the fusion frees it."""


class SparseUNet:
    """Stands in a U-Net's place in :func:`stages.models.diffusion.sampler.sample`.

    Args:
        unet: the U-Net; its layers are replaced by those of :mod:`stages.edit.sparse.layers`.
        layers: its attention processors, from ``install``.
        region: where edits are computed.
        halo: tokens around the free ones that are computed too, as a fraction of the shorter side.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        layers: list[PromptToPromptAttention],
        region: Region,
        halo: float,
    ) -> None:
        self.unet, self.region, self.halo, self.state = unet, region, halo, State()
        self._layers = layers
        self.plans: list[StepPlan] = []
        self._first_equal = torch.empty(0, dtype=torch.long)
        _replace_layers(unet, self.state)
        # diffusers empties the dict that it receives.
        unet.set_attn_processor({each.name: SparseAttention(each.name, each, self.state) for each in layers})  # type: ignore[arg-type]

    @property
    def config(self) -> Any:
        """The U-Net's configuration."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of the U-Net's weights."""
        return self.unet.dtype

    def begin(self, control: PromptToPrompt | None, size: Size) -> None:
        """Prepare a batch; without a control the U-Net computes all rows whole.

        Args:
            control: without LocalBlend.
            size: rows and columns of the latents.
        """
        self.state.control = control
        if control is None:
            return
        begin(self._layers, control)
        self.state.sizes = level_sizes(size, len(self.config.block_out_channels))
        turns = [range(turn.start, turn.stop) for turn in control.turns]
        batch = Batch(control.sources, control.source_rows.tolist(), turns, len(control.halves))
        distinct, halo = sorted(set(control.first_equal)), round(self.halo * min(size))

        def planned(free: torch.Tensor) -> StepPlan:
            plan = plan_step({edit: free[edit] for edit in distinct}, batch, self.state.sizes)
            return plan.to(control.matrix.device)

        self.plans = plan_steps(control, size, planned, halo=halo, support=self.region == "support")
        device, pictures = control.source_rows.device, torch.full((batch.halves, batch.rows), -1)
        for half in range(batch.halves):
            numbers = torch.arange(len(batch.origins)) + half * len(batch.origins)
            pictures[half, batch.stored_rows] = numbers
        roots = [root + half * batch.sources for half in range(batch.halves) for root in batch.roots]
        self.state.pictures, self.state.roots = pictures.flatten().to(device), torch.tensor(roots).to(device)
        self._first_equal = torch.tensor(control.first_equal, device=device)

    def __call__(
        self,
        rows: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        timestep_cond: torch.Tensor | None = None,
        added_cond_kwargs: Mapping[str, torch.Tensor] | None = None,
    ) -> UNet2DConditionOutput:
        """The prediction for latents [R,c,h,w], as the U-Net's own.

        An edit's prediction is its source's where the edit is not computed.
        """
        state, control = self.state, self.state.control
        conditions = Conditions(timestep, states, timestep_cond, added_cond_kwargs)
        if control is None:
            return UNet2DConditionOutput(sample=self._predict(rows, None, conditions))
        state.plan, state.mode = self.plans[control.step], Mode.SOURCES
        halves = control.halves
        sources = torch.cat([torch.arange(control.sources, device=rows.device) + half for half in halves])
        predicted = torch.empty_like(rows)
        predicted[sources] = self._predict(rows[sources], sources, conditions)
        state.mode = Mode.EDITS
        for turn, calls in zip(control.turns, state.plan.turns, strict=True):
            for half in halves:
                predicted[control.edit_rows[turn] + half] = predicted[control.source_rows[turn] + half]
            for state.call in calls:
                drawn = self._draw(state.call, rows, predicted, conditions)
                predicted[state.call.rows[state.call.kept]] = drawn[state.call.kept]
            for half in halves:
                equal = control.edit_rows[self._first_equal[turn]] + half
                predicted[control.edit_rows[turn] + half] = predicted[equal]
        state.end()
        return UNet2DConditionOutput(sample=predicted)

    def _draw(
        self, call: Call, rows: torch.Tensor, predicted: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """The prediction for a call's rows; outside of its lists, what is predicted already."""
        latents = rows[call.rows]
        if call.lists is None:
            return self._predict(latents, call.rows, conditions)
        where = call.tokens(0)[:, None].expand(-1, latents.shape[1], -1)
        listed = latents.flatten(2).gather(2, where)[..., None]
        drawn = self._predict(listed, call.rows, conditions)[..., 0]
        return predicted[call.rows].flatten(2).scatter(2, where, drawn).view_as(latents)

    def _predict(
        self, latents: torch.Tensor, chosen: torch.Tensor | None, conditions: Conditions
    ) -> torch.Tensor:
        """The U-Net's prediction for the chosen rows of the batch; None: for all."""
        of = conditions if chosen is None else conditions.of(chosen)
        return self.unet(
            latents.contiguous(memory_format=torch.channels_last),
            of.timestep,
            of.states,
            timestep_cond=of.timestep_cond,
            added_cond_kwargs=of.added,
        ).sample


def _replace_layers(unet: UNet2DConditionModel, state: State) -> None:
    """Put sparse layers in the places of those that see more than one token."""
    for name, module in list(unet.named_modules()):
        replacement: nn.Module | None = None
        if isinstance(module, Upsample2D):
            replacement = SparseUpsample(name, module, state)
        elif isinstance(module, nn.GroupNorm):
            replacement = SparseGroupNorm(name, module, state)
        elif isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            replacement = SparseConv(name, module, state)
        if replacement is not None and not _inside_upsample(unet, name):
            unet.set_submodule(name, replacement)


def _inside_upsample(unet: UNet2DConditionModel, name: str) -> bool:
    parent = name.rpartition(".")[0]
    return bool(parent) and isinstance(unet.get_submodule(parent), SparseUpsample)
