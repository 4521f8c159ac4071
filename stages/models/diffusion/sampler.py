"""The denoising loop: a first-order sampler, one row a picture.

The source and the edit stage call the same loop, so a source row comes out as it was. A *control*
may watch the steps: it is told which step comes (its attention processors act on that) and may
change the latents after the step.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UNet2DConditionModel,
)

SCHEDULERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "lcm": LCMScheduler,
}
"""Samplers whose state between steps is the latents alone. A multistep solver (DPM-Solver++, UniPC)
also keeps earlier predictions, which fusing the latents with a source's would leave unfused."""


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
    scheduler: Any,
    latents: torch.Tensor,
    cond: torch.Tensor,
    uncond: torch.Tensor | None,
    guidance_scale: torch.Tensor,
    steps: int,
    control: Control | None = None,
    *,
    noise_seeds: Sequence[int] | None = None,
    added: Mapping[str, torch.Tensor] | None = None,
    timestep_cond: torch.Tensor | None = None,
) -> torch.Tensor:
    """Denoise ``latents``.

    Args:
        scheduler: one of SCHEDULERS.
        latents: Gaussian noise of deviation 1 [L,c,h,w], one row a picture; kept in its own
            precision between the steps.
        cond: the prompts' embeddings [L,T,d].
        uncond: the empty prompt's embedding [T,d] or [L,T,d]; None: no classifier-free guidance.
        guidance_scale: [L]; not used without guidance.
        steps: of the scheduler.
        noise_seeds: for samplers that add noise: a seed a row. Rows of one edit share theirs, or
            what no edit touches would come out different.
        added: further conditions of the U-Net by name, such as SDXL's, with a row for each it sees.
        timestep_cond: the embedded guidance of distilled models [L,w].

    Returns:
        x_0 [L,c,h,w]. With guidance the U-Net sees 2L rows: the unconditional ones first.

    Raises:
        ValueError: the scheduler keeps more than the latents between its steps.
    """
    if not any(isinstance(scheduler, kind) for kind in SCHEDULERS.values()):
        raise ValueError(
            f"{type(scheduler).__name__} keeps more than the latents between steps, which latent fusion "
            f"would not reach; samplers: {', '.join(SCHEDULERS)}"
        )
    scheduler.set_timesteps(steps)
    # the scheduler's own stay with it: to read a GPU's it would wait for the GPU
    timesteps = scheduler.timesteps.to(latents.device)
    latents = latents * scheduler.init_noise_sigma
    states = cond if uncond is None else torch.cat([uncond.expand_as(cond), cond])
    scale = guidance_scale.to(latents)[:, None, None, None]
    generator = [torch.Generator().manual_seed(seed) for seed in noise_seeds or []] or None
    for step, t in enumerate(scheduler.timesteps):
        if control is not None:
            control.before_step(step)
        rows = scheduler.scale_model_input(latents, t)
        rows = rows if uncond is None else torch.cat([rows, rows])
        rows = rows.to(states.dtype)
        output = unet(rows, timesteps[step], states, timestep_cond=timestep_cond, added_cond_kwargs=added)
        predicted = output.sample.to(latents.dtype)
        if uncond is not None:
            predicted_uncond, predicted_cond = predicted.chunk(2)
            predicted = predicted_uncond + scale * (predicted_cond - predicted_uncond)
        latents = scheduler.step(predicted, t, latents, generator=generator).prev_sample
        if control is not None:
            latents = control.after_step(step, latents)
    return latents
