"""A U-Net that computes sources whole and edits as lists of tokens, with a U-Net's own call signature."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.models.upsampling import Upsample2D
from torch import nn

from stages.edit.prompt_to_prompt.attention import of_text
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.fusion import Fusion
from stages.edit.sparse.attention import SparseAttention
from stages.edit.sparse.batch import Batch
from stages.edit.sparse.calls import Call, StepPlan
from stages.edit.sparse.conditions import Conditions
from stages.edit.sparse.cost import cost_by_weights, mean_costs, weights_by_level
from stages.edit.sparse.layers import SparseConv, SparseGroupNorm, SparseUpsample
from stages.edit.sparse.plan import EDITS_A_CALL, plan_step
from stages.edit.sparse.state import Mode, State
from stages.edit.sparse.steps import free_by_step, plan_steps
from stages.edit.sparse.token_lists import Size, level_sizes

Region = Literal["support", "schedule"]
"""Where an edit is computed: where M > 0, or in each step where the fusion frees it."""
GRAPHS = 64
"""At most so many graphs of a compiled U-Net: one for its sources and one a length of lists, for each size of
pictures, and those of edits that are computed whole."""


class SparseUNet:
    """Stands in a U-Net's place in :func:`stages.models.diffusion.sampler.sample`.

    Args:
        unet: the U-Net; its layers are replaced by those of :mod:`stages.edit.sparse.layers`.
        region: where edits are computed.
        halo: tokens around the free ones that are computed too, as a fraction of the shorter side.
        compiled: whether to run compiled graphs, one for sources and one a length of lists. Batches with
            edits of several turns or with LocalBlend run without.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        region: Region,
        halo: float,
        *,
        compiled: bool = False,
    ) -> None:
        self.unet, self.region, self.halo, self.state = unet, region, halo, State()
        self.plans: list[StepPlan] = []
        self._first_equal, self._weights = torch.empty(0, dtype=torch.long), weights_by_level(unet)
        _replace_layers(unet, self.state)
        unet.set_attn_processor({name: SparseAttention(name, self.state) for name in unet.attn_processors})  # type: ignore[arg-type]
        self._compiled: Any = None
        if compiled:
            self._compiled = torch.compile(unet, dynamic=False, fullgraph=True, recompile_limit=GRAPHS)

    @property
    def config(self) -> Any:
        """The U-Net's configuration."""
        return self.unet.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of the U-Net's weights."""
        return self.unet.dtype

    def costs(self, mask: torch.Tensor, fusion: Fusion, steps: int, size: Size) -> list[float]:
        """What edits with the masks M [E,1,H,W] cost, as shares of the same edits computed whole.

        ``size``: rows and columns of the latents.
        """
        sizes = level_sizes(size, len(self.config.block_out_channels))
        free = free_by_step(mask, fusion, steps, size, **self._reach(size))
        return mean_costs(free, sizes, cost_by_weights(self._weights, sizes))

    def _reach(self, size: Size) -> dict[str, Any]:
        """How far around the free tokens an edit is computed."""
        return {"halo": round(self.halo * min(size)), "support": self.region == "support"}

    def begin(self, control: PromptToPrompt, size: Size) -> None:
        """Prepare a batch.

        Args:
            control: its edits with LocalBlend are computed whole.
            size: rows and columns of the latents.
        """
        self.state.control = control
        steady = len(control.turns) == 1 and not control.blending
        self.state.compiled = self._compiled is not None and steady
        self.state.sizes = level_sizes(size, len(self.config.block_out_channels))
        turns = [range(turn.start, turn.stop) for turn in control.turns]
        batch = Batch(control.sources, control.source_rows.tolist(), turns, len(control.halves))
        distinct = sorted(set(control.first_equal))

        def planned(free: torch.Tensor) -> StepPlan:
            chosen, device = {edit: free[edit] for edit in distinct}, control.matrix.device
            count = EDITS_A_CALL[device.type]
            plan = plan_step(chosen, batch, self.state.sizes, count, store_all=self.state.compiled)
            return plan.to(device)

        self.plans = plan_steps(control, size, planned, **self._reach(size))
        device, pictures = control.source_rows.device, torch.full((batch.halves, batch.rows), -1)
        for half in range(batch.halves):
            numbers = torch.arange(len(batch.origins)) + half * len(batch.origins)
            pictures[half, batch.stored_rows] = numbers
        roots = [root + half * batch.sources for half in range(batch.halves) for root in batch.roots]
        self.state.pictures, self.state.roots = pictures.flatten().to(device), torch.tensor(roots).to(device)
        self._first_equal = torch.tensor(control.first_equal, device=device)
        control.layers = {
            module.processor.name: partial(of_text, module)
            for module in self.unet.modules()
            if isinstance(module, Attention) and module.is_cross_attention
        }

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
        state, control = self.state, self.state.controlled
        conditions = Conditions(timestep, states, timestep_cond, added_cond_kwargs)
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
        if control.blending:
            for maps in (control.source_maps, control.target_maps):
                maps.copy_(maps[self._first_equal])
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

    def _predict(self, latents: torch.Tensor, chosen: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        """The U-Net's prediction for the chosen rows of the batch."""
        of, network = conditions.of(chosen), self._compiled if self.state.compiled else self.unet
        return network(
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
