"""The denoising loop: a first-order sampler with one row per picture.

The source stage and the edit stage use the same loop, so a source row gives the same picture in both. A
*control* can take part: before the first step it sees the prompts, before each step it learns the step's
index (its attention processors use both), and after each step it can change the latents.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)

SCHEDULERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "lcm": LCMScheduler,
    "flow_euler": FlowMatchEulerDiscreteScheduler,
}
"""Samplers whose only state between steps is the latents.

A multistep solver (DPM-Solver++, UniPC) also keeps earlier predictions. Fusing the latents with the source's
would not reach these predictions."""


class Control(Protocol):
    """Takes part in sampling; Prompt-to-Prompt is one."""

    def before_sampling(self, states: torch.Tensor, size: tuple[int, int]) -> None:
        """Called once, with the prompts' states of the network's rows [R,T,d] and the latents' h, w."""

    def before_step(self, step: int) -> None:
        """Called with the step's 0-based index before the network runs."""

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        """Receives the latents [L,c,h,w] after the scheduler's step; returns the latents to continue with."""
        ...


Guided = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""A prediction [L,c,h,w] of the unconditional one, the conditional one, and the scale [L,1,1,1]."""


def classifier_free(
    unconditional: torch.Tensor, conditional: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Classifier-free guidance (Ho and Salimans 2022); see Guided."""
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def sample(
    network: Any,
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
    start: int | None = None,
    schedule: Mapping[str, Any] | None = None,
    guided: Guided = classifier_free,
) -> torch.Tensor:
    """Denoise ``latents``.

    Args:
        network: a U-Net, or what is called as one: ``network(latents, timestep, states, timestep_cond=,
            added_cond_kwargs=)`` returns an object with the prediction as ``sample``.
        scheduler: one of SCHEDULERS.
        latents: Gaussian noise of standard deviation 1 [L,c,h,w], one row per picture. They keep their own
            precision between the steps.
        cond: embeddings of the prompts [L,T,d].
        uncond: embedding of the empty prompt [T,d] or [L,T,d]; None turns classifier-free guidance off.
        guidance_scale: [L]; unused without guidance.
        steps: number of steps.
        noise_seeds: one seed per row, for samplers that add noise. Rows of one edit share a seed; otherwise
            the unedited area would differ between them.
        added: further conditions of the network by name, such as SDXL's, one row for each of its rows.
        timestep_cond: embedded guidance of distilled models, one row for each picture.
        schedule: arguments of the scheduler's ``set_timesteps``; None: the number of steps alone.
        guided: how the two halves of a guided prediction become one.
        start: the first step, if ``latents`` are not noise but those before this step, scaled as the
            scheduler's.

    Returns:
        x_0 [L,c,h,w]. With guidance, the network is called with 2L rows: first the unconditional rows.

    Raises:
        ValueError: the scheduler keeps more than the latents between its steps.
    """
    if not any(isinstance(scheduler, kind) for kind in SCHEDULERS.values()):
        raise ValueError(
            f"{type(scheduler).__name__} keeps more than the latents between steps, which latent fusion "
            f"does not reach; samplers: {', '.join(SCHEDULERS)}"
        )
    scheduler.set_timesteps(**(schedule or {"num_inference_steps": steps}))
    # Keep the scheduler's own timesteps on the CPU: reading them from a GPU would wait for the GPU.
    timesteps = scheduler.timesteps.to(latents.device)
    # Flow matching starts from noise of deviation 1, and its latents enter the network unscaled.
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    if start is None and not flow:
        latents = latents * scheduler.init_noise_sigma
    states = cond if uncond is None else torch.cat([uncond.expand_as(cond), cond])
    scale = guidance_scale.to(latents)[:, None, None, None]
    generator = [torch.Generator().manual_seed(seed) for seed in noise_seeds or []] or None
    if control is not None:
        control.before_sampling(states, (latents.shape[-2], latents.shape[-1]))
    for step, t in list(enumerate(scheduler.timesteps))[start or 0 :]:
        if control is not None:
            control.before_step(step)
        rows = latents if flow else scheduler.scale_model_input(latents, t)
        rows = rows if uncond is None else torch.cat([rows, rows])
        rows = rows.to(states.dtype)
        output = network(rows, timesteps[step], states, timestep_cond=timestep_cond, added_cond_kwargs=added)
        predicted = output.sample.to(latents.dtype)
        if uncond is not None:
            unconditional, conditional = predicted.chunk(2)
            predicted = guided(unconditional, conditional, scale)
        latents = scheduler.step(predicted, t, latents, generator=generator).prev_sample
        if control is not None:
            latents = control.after_step(step, latents)
    return latents
