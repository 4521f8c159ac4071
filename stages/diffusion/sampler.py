"""The denoising loop: DDIM with classifier-free guidance, one row a picture.

The source and the edit stage call the same loop, so a source row comes out as it was. A *control*
may watch the steps: it is told which step comes (its attention processors act on that) and may
change the latents after the step.
"""

from typing import Protocol

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel


class Control(Protocol):
    """Takes part in sampling, for example Prompt-to-Prompt."""

    def before_step(self, step: int) -> None:
        """Called with the step's index, 0-based, before the U-Net runs."""

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Gives the latents [L,c,h,w] to go on with after the scheduler's step."""
        ...


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    cond: torch.Tensor,
    uncond: torch.Tensor,
    guidance_scale: torch.Tensor,
    steps: int,
    control: Control | None = None,
) -> torch.Tensor:
    """Denoise ``latents``.

    Args:
        latents: x_T [L,c,h,w], one row a picture; kept in its own precision between the steps.
        cond: the prompts' embeddings [L,T,d].
        uncond: the empty prompt's embedding [T,d] or [L,T,d].
        guidance_scale: [L].
        steps: of the scheduler.

    Returns:
        x_0 [L,c,h,w]. The U-Net sees 2L rows: the L unconditional ones, then the L conditional.
    """
    scheduler.set_timesteps(steps, device=latents.device)
    states = torch.cat([uncond.expand_as(cond), cond])
    scale = guidance_scale.to(latents)[:, None, None, None]
    for step, t in enumerate(scheduler.timesteps):
        if control is not None:
            control.before_step(step)
        rows = torch.cat([latents, latents]).to(states.dtype)
        predicted_uncond, predicted_cond = unet(rows, t, states).sample.to(latents.dtype).chunk(2)
        predicted = predicted_uncond + scale * (predicted_cond - predicted_uncond)
        latents = scheduler.step(predicted, t, latents).prev_sample
        if control is not None:
            latents = control.after_step(step, latents)
    return latents
