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
    """States [R,...], in which ``change(source, own, turn)`` replaces those of every turn's edits."""
    for turn in control.turns:
        for offset in control.halves:
            rows = control.edit_rows[turn] + offset
            own = change(states[control.source_rows[turn] + offset], states[rows], turn)
            states = states.index_copy(0, rows, own)
    return states
