"""The plans of all steps of a batch; successive steps with the same free tokens share one."""

from collections.abc import Callable
from typing import TypeVar

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.fusion import free_above
from stages.edit.sparse.token_lists import Size, free_tokens

Plan = TypeVar("Plan")


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
        control: of the batch; an edit without a mask is free everywhere.
        size: rows and columns of the tokens.
        plan: makes one from the edits' free tokens, bool [E,h,w] on the CPU.
        halo: width of the halo in tokens.
        support: take in every step all tokens that are free in some step.
    """
    mask = None if control.mask is None else control.mask.cpu()
    plans: list[Plan] = []
    before: torch.Tensor | None = None
    for step in range(control.steps):
        if mask is None:
            free = torch.ones(len(control.first_equal), *size, dtype=torch.bool)
        else:
            above = free_above(control.fusion, step, control.steps)
            free = free_tokens(mask, min(above, 0) if support else above, size, halo)
        same = before is not None and torch.equal(free, before)
        plans.append(plans[-1] if same else plan(free))
        before = free
    return plans
