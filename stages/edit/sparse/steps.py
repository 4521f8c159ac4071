"""The plans of all steps of a batch; successive steps with the same free tokens share one."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.fusion import Fusion, free_above, pool_mask
from stages.edit.sparse.token_lists import Size, free_tokens

Plan = TypeVar("Plan")


def free_by_step(
    mask: torch.Tensor, fusion: Fusion, steps: int, size: Size, *, halo: int = 0, support: bool = False
) -> Iterator[torch.Tensor]:
    """The free tokens of edits in each step, bool [E,h,w].

    Args:
        mask: M [E,1,H,W] in [0,1], on the CPU.
        fusion: how M acts on the latents.
        steps: their number.
        size: rows and columns of the tokens.
        halo: width of the halo in tokens.
        support: in every step all tokens that are free in some step.
    """
    pooled = pool_mask(mask, *size)  # once; pooling it again changes nothing
    for step in range(steps):
        above = free_above(fusion, step, steps)
        yield free_tokens(pooled, min(above, 0) if support else above, size, halo)


def plan_steps(
    control: PromptToPrompt,
    size: Size,
    plan: Callable[[torch.Tensor], Plan],
    *,
    halo: int = 0,
    support: bool = False,
) -> list[Plan]:
    """The plan of each step.

    Args:
        control: of the batch; an edit without a mask is free everywhere, and so is one with LocalBlend,
            which finds its region while it is drawn.
        size: rows and columns of the tokens.
        plan: makes one from the edits' free tokens, bool [E,h,w] on the CPU.
        halo, support: as for :func:`free_by_step`.
    """
    mask = None if control.mask is None else control.mask.cpu()
    plans: list[Plan] = []
    before: torch.Tensor | None = None
    if mask is None:
        mask = torch.ones(len(control.first_equal), 1, *size)
    for free in free_by_step(mask, control.fusion, control.steps, size, halo=halo, support=support):
        free[control.blended] = True
        same = before is not None and torch.equal(free, before)
        plans.append(plans[-1] if same else plan(free))
        before = free
    return plans
