"""Known latents of a picture at every noise level, along which a source row can be forced."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from stages.seeds import derive_seed


class Trajectory:
    """The latents of pictures before each step of a sampler, each with noise of its own.

    With one noise for all steps, fewer edits of the toybox are right (docs/photographs.md).

    Args:
        scheduler: one of :data:`stages.models.diffusion.sampler.SCHEDULERS`. ``sample`` sets the same steps.
        clean: the pictures' latents [n,c,h,w], which are the last ones.
        seeds: one seed per picture, of its noise.
        steps: number of sampling steps.
        schedule: arguments of the scheduler's ``set_timesteps``; None: the number of steps alone.
    """

    def __init__(
        self,
        scheduler: Any,
        clean: torch.Tensor,
        seeds: Sequence[int],
        steps: int,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        scheduler.set_timesteps(**(schedule or {"num_inference_steps": steps}))
        self.scheduler, self.clean, self.seeds, self.steps = scheduler, clean, seeds, steps

    def before(self, step: int) -> torch.Tensor:
        """The latents [n,c,h,w] before a step, scaled as the sampler's; before step ``steps``, the clean
        ones."""
        if step == self.steps:
            return self.clean
        return with_noise(self.scheduler, self.clean, self._noise(step), step)

    def _noise(self, step: int) -> torch.Tensor:
        """Gaussian noise; each picture has its own CPU generator."""
        rows = []
        for seed, clean in zip(self.seeds, self.clean, strict=True):
            generator = torch.Generator().manual_seed(derive_seed(seed, "picture", step))
            rows.append(torch.randn(clean.shape, generator=generator))
        return torch.stack(rows).to(self.clean)


def with_noise(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
    """Clean latents [n,...] with the noise that a scheduler's latents have before a step."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        share = float(scheduler.sigmas[step])
        return (1 - share) * clean + share * noise
    level = scheduler.timesteps[step : step + 1]
    return scheduler.add_noise(clean, noise, level.expand(len(clean)))
