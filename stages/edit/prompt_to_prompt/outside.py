"""What an edit takes from its source outside its mask, inside the network.

Edits are changed turn by turn, because a later turn takes the already changed states of the turn before.
"""

from collections.abc import Callable

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt


def mix_outside(output: torch.Tensor, control: PromptToPrompt) -> torch.Tensor:
    """Attention outputs [R,N,C] of N tokens of the picture, mixed with the source's by the soft mask M."""
    mask = control.mask_for(output.shape[1])
    if mask is None:
        return output
    return _changed(
        output,
        control,
        lambda source, own, turn: torch.lerp(source, own, mask[turn].to(output.dtype)),
    )


def held(states: torch.Tensor, control: PromptToPrompt, inactive: torch.Tensor) -> torch.Tensor:
    """States [R,...,N,C] of the picture, those of inactive tokens replaced by the source's.

    Args:
        states: of N tokens.
        control: of the batch.
        inactive: by edit, bool [E,...,N,1] (:meth:`PromptToPrompt.inactive`).
    """
    return _changed(states, control, lambda source, own, turn: torch.where(inactive[turn], source, own))


def _changed(
    states: torch.Tensor,
    control: PromptToPrompt,
    change: Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor],
) -> torch.Tensor:
    """States [R,...], in which ``change(source, own, turn)`` replaces those of every turn's edits.

    ``source`` and ``own`` are [halves,E,...]: both halves are changed at once, because on a GPU each call
    costs about the same, however small it is.
    """
    for turn, both in zip(control.turns, control.rows_by_turn, strict=True):
        source, own = (states[rows].unflatten(0, (len(control.halves), -1)) for rows in both)
        states = states.index_copy(0, both[1], change(source, own, turn).flatten(0, 1))
    return states
