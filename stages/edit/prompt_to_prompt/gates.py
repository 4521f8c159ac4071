"""When an edit takes the source's attention: the published schedules, as tables over the steps.

Fractions become steps as in google/prompt-to-prompt (Hertz et al. 2022): cross-attention is
controlled over the steps ``int(lo * (S + 1)) .. int(hi * (S + 1)) - 1``, self-attention where
``int(S * lo) <= step < int(S * hi)``. Few-step models state step counts instead, since four steps
leave a fraction little to choose from.
"""

from collections.abc import Iterable, Sequence

import torch

from stages.edit.prompt_to_prompt.windows import Window


def cross_gate(
    steps: int, tokens: int, window: Window, exceptions: Iterable[tuple[Sequence[int], Window]] = ()
) -> torch.Tensor:
    """The gate ``a`` of cross-attention, float [steps,tokens] of 0 and 1, by step and target token.

    Args:
        window: of every token.
        exceptions: token positions with a window of their own, such as those of one word; later
            ones win.
    """
    gate = torch.zeros(steps, tokens)
    for positions, (low, high) in ((range(tokens), window), *exceptions):
        column = torch.zeros(steps)
        column[int(low * (steps + 1)) : int(high * (steps + 1))] = 1
        gate[:, list(positions)] = column[:, None]
    return gate


def self_gate(steps: int, window: Window) -> torch.Tensor:
    """The gate of self-attention, bool [steps]."""
    step = torch.arange(steps)
    return (step >= int(steps * window[0])) & (step < int(steps * window[1]))


def shared_gate(steps: int, strength: float) -> torch.Tensor:
    """InstructPix2Pix's gate (Brooks et al. 2023), bool [steps]: open where strength > i / (steps - 1)."""
    return strength > torch.arange(steps) / max(1, steps - 1)
