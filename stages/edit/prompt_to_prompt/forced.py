"""Forced sources: the sources of edits are pictures that are given, not drawn.

After each step, a source's latents are replaced by known ones (:mod:`stages.models.diffusion.trajectory`).
What this changed is added to its edits:

    r = x_s(i+1) - step(x_s(i));    x_s <- x_s(i+1);    x_t <- step(x_t(i)) + r

The source thereby ends as its picture, and so does an edit that asks for nothing else. With fresh noise and a
sampler that adds noise (euler_ancestral), this is edit-friendly DDPM inversion (Huberman-Spiegelglas et al.
2024) without its extra calls of the U-Net. By flow matching it is FlowEdit (Kulikov et al. 2024).
"""

import torch

from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.models.diffusion.trajectory import Trajectory


class ForcedSources:
    """Takes part in sampling around Prompt-to-Prompt: LocalBlend and fusion see the forced latents.

    Args:
        control: the batch's control.
        trajectory: of its sources, in order.
        start: the first step to sample; a late start leaves the edits nearer to the picture.
    """

    def __init__(self, control: PromptToPrompt, trajectory: Trajectory, start: int = 0) -> None:
        self.control, self.trajectory, self.start = control, trajectory, start
        roots = list(range(control.sources))
        for source in control.source_rows.tolist():
            roots.append(roots[source])  # in a session the source of an edit is an edit of the same picture
        self.roots = torch.tensor(roots, device=control.source_rows.device)
        """For each row, the source that its session began with."""

    def initial_latents(self) -> torch.Tensor:
        """The latents of all rows [L,c,h,w] before step ``start``."""
        return self.trajectory.before(self.start)[self.roots]

    def before_sampling(self, states: torch.Tensor, size: tuple[int, int]) -> None:
        self.control.before_sampling(states, size)

    def before_step(self, step: int) -> None:
        self.control.before_step(step)

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        known = self.trajectory.before(step + 1)
        # In this order of sums, an edit that equals its source to the bit keeps doing so.
        forced = known[self.roots] + (latents - latents[self.roots])
        return self.control.after_step(step, forced)
