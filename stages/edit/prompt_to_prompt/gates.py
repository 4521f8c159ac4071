"""In which steps an edit takes the source's attention: the published schedules as tables over the steps.

A window (lo, hi) of fractions becomes steps as in google/prompt-to-prompt (Hertz et al. 2022). With S steps,
cross-attention is controlled in steps ``int(lo * (S + 1)) .. int(hi * (S + 1)) - 1``, self-attention in steps
``int(S * lo) .. int(S * hi) - 1``. The rounding differs on purpose: it reproduces the published code
(docs/prompt-to-prompt.md, section 4). For few-step models, manifests give numbers of steps instead.
"""

from collections.abc import Iterable, Sequence

import torch

from stages.edit.prompt_to_prompt.windows import Window


def cross_gate(
    steps: int, tokens: int, window: Window, exceptions: Iterable[tuple[Sequence[int], Window]] = ()
) -> torch.Tensor:
    """The gate a of cross-attention, float [steps,tokens], 0 or 1, by step and target token.

    Args:
        steps: number of sampling steps.
        tokens: number of tokens in a prompt.
        window: the window of every token.
        exceptions: token positions with their own window, such as the tokens of one word. The window replaces
            the default one; a later exception replaces an earlier one.
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
    """InstructPix2Pix's gate (Brooks et al. 2023), bool [steps]: open if strength > i / (steps - 1)."""
    return strength > torch.arange(steps) / max(1, steps - 1)
