"""Forced sources: a given picture's latents are the source, exactly, and its edits follow it.

On a tiny random U-Net in float64, against the edit-friendly DDPM loop written from its paper.
"""

import pytest
import torch
from diffusers import DDIMScheduler

from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import PromptToPrompt
from stages.edit.prompt_to_prompt.forced import ForcedSources
from stages.models.diffusion.sampler import SCHEDULERS, sample
from stages.models.diffusion.trajectory import Trajectory
from tests.stages.test_prompt_to_prompt_oracle import (
    LENGTH,
    NOTICED,
    REFINE,
    SELF_MAX,
    STABLE_DIFFUSION,
    STEPS,
    edit,
    row_of,
    soft_mask,
    unet,
)

__all__ = ["unet"]  # a fixture

SCALE = 3.0
FREE = {"cross": (0, 0), "self_": (0, 0)}


class DDPM(DDIMScheduler):
    """DDIM with eta 1, whose step is the one of DDPM."""

    def step(self, *given, generator=None):
        return super().step(*given, eta=1.0, generator=generator)


class Unforced(ForcedSources):
    """As a late copy: the sources are replaced, and their edits do not get what this changed."""

    def after_step(self, step, latents):
        known = self.trajectory.before(step + 1)
        return self.control.after_step(step, torch.cat([known, latents[len(known) :]]))


def exact(kind: type[DDIMScheduler]) -> DDIMScheduler:
    """A scheduler whose noise levels are float64, and whose last step also adds noise."""
    scheduler = kind.from_config({**STABLE_DIFFUSION, "set_alpha_to_one": False, "steps_offset": 1})
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def prompts(captions: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings by number of the caption, and of the empty prompt."""
    generator = torch.Generator().manual_seed(1)
    known = torch.randn(9, LENGTH, 16, generator=generator, dtype=torch.float64)
    return known[captions], known[-1]


def draw(unet, edits, captions, *, scheduler=None, start=0, kind=ForcedSources, **options):
    """Latents of [sources | edits] at the end, and the sources' pictures."""
    layers = install(unet.double())
    sources = len(captions) - len(edits)
    clean, guided = pictures(sources), options.get("guided", True)
    rows = [row_of(each) for each in edits]
    control = PromptToPrompt(rows, sources, STEPS, SELF_MAX, torch.device("cpu"), torch.float64, **options)
    begin(layers, control)
    scheduler = scheduler or SCHEDULERS["ddim"].from_config(STABLE_DIFFUSION)
    trajectory = Trajectory(scheduler, clean, range(sources), STEPS)
    forced = kind(control, trajectory, start)
    cond, uncond = prompts(captions)
    latents = sample(
        unet,
        scheduler,
        forced.initial_latents(),
        cond,
        uncond if guided else None,
        torch.full((len(cond),), SCALE),
        STEPS,
        forced,
        noise_seeds=forced.roots.tolist(),
        start=forced.start,
    )
    return latents, clean


@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler_ancestral", "lcm"])
@pytest.mark.parametrize("start", [0, 2])
def test_sources_end_as_their_pictures_to_the_bit(unet, sampler, start):
    scheduler = SCHEDULERS[sampler].from_config(STABLE_DIFFUSION)
    edits = [edit(source=1), edit(REFINE, mask=soft_mask())]
    latents, clean = draw(unet, edits, [0, 1, 2, 3], scheduler=scheduler, start=start)
    assert torch.equal(latents[:2], clean)
    assert (latents[2] - clean[1]).abs().max() > NOTICED


@pytest.mark.parametrize("gates", [FREE, {}, {"cross": (0, 1), "self_": (0, 1)}], ids=["off", "some", "all"])
@pytest.mark.parametrize("guided", [True, False])
def test_an_edit_with_the_same_prompt_ends_as_the_picture(unet, gates, guided):
    same = edit(REFINE, **gates)
    same.matrix, same.own = torch.eye(LENGTH), torch.zeros(LENGTH)
    latents, clean = draw(unet, [same], [0, 0], guided=guided)
    assert (latents[1] - clean[0]).abs().max() < 1e-10
    without, _ = draw(unet, [same], [0, 0], guided=guided, kind=Unforced)
    assert (without[1] - clean[0]).abs().max() > NOTICED, "the residual is what does it"


def edit_friendly(unet, scheduler, clean, source, target, uncond) -> torch.Tensor:
    """Huberman-Spiegelglas et al. 2024, algorithm 1, by DDPM's posterior mean, without attention control."""
    begin(install(unet), None)
    trajectory = Trajectory(scheduler, clean, [0], STEPS)
    levels = [float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps]
    levels.append(float(scheduler.final_alpha_cumprod))

    def mean_and_deviation(step, x, caption):
        t, now, after = scheduler.timesteps[step], levels[step], levels[step + 1]
        free, asked = unet(torch.cat([x, x]), t, torch.stack([uncond, caption])).sample
        noise = (free + SCALE * (asked - free))[None]
        picture = (x - (1 - now) ** 0.5 * noise) / now**0.5
        alpha = now / after
        mean = after**0.5 * (1 - alpha) / (1 - now) * picture + alpha**0.5 * (1 - after) / (1 - now) * x
        return mean, ((1 - after) / (1 - now) * (1 - alpha)) ** 0.5

    edited = trajectory.before(0)
    for step in range(STEPS):
        mean, deviation = mean_and_deviation(step, trajectory.before(step), source)
        kept = (trajectory.before(step + 1) - mean) / deviation  # the noise map z of the inversion
        mean, deviation = mean_and_deviation(step, edited, target)
        edited = mean + deviation * kept
    return edited


@torch.no_grad()
def test_it_is_edit_friendly_ddpm_inversion(unet):
    scheduler = exact(DDPM)
    latents, clean = draw(unet, [edit(**FREE)], [0, 3], scheduler=scheduler)
    (source, target), uncond = prompts([0, 3])
    expected = edit_friendly(unet, scheduler, clean, source, target, uncond)
    assert (latents[1:] - expected).abs().max() < 1e-10
    other, _ = draw(unet, [edit(**FREE)], [0, 3], scheduler=exact(DDIMScheduler))
    assert (other[1:] - expected).abs().max() > NOTICED, "another step is another edit"


def test_where_the_mask_is_0_the_edit_is_the_picture_to_the_bit(unet):
    latents, clean = draw(unet, [edit(mask=soft_mask()), edit(mask=soft_mask() * 0)], [0, 1, 2])
    outside = torch.nn.functional.adaptive_max_pool2d(soft_mask()[None], (8, 8))[0] == 0
    assert torch.equal(latents[1][:, outside], clean[0][:, outside])
    assert (latents[1][:, ~outside] - clean[0][:, ~outside]).abs().max() > NOTICED
    assert torch.equal(latents[2], clean[0])


def test_a_late_start_runs_only_the_later_steps_and_stays_nearer(unet):
    calls = []
    handle = unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        early, clean = draw(unet, [edit()], [0, 1])
        assert len(calls) == STEPS
        late, _ = draw(unet, [edit()], [0, 1], start=STEPS - 1)
        assert len(calls) == STEPS + 1
    finally:
        handle.remove()
    assert 0 < (late[1] - clean[0]).abs().mean() < (early[1] - clean[0]).abs().mean()


def test_a_later_turn_follows_the_picture_that_its_session_began_with(unet):
    same = edit(REFINE, source=2, cross=(0, 1), self_=(0, 1))
    same.matrix, same.own = torch.eye(LENGTH), torch.zeros(LENGTH)
    latents, clean = draw(unet, [edit(), same], [4, 0, 1, 1])
    assert (latents[2] - clean[0]).abs().max() > NOTICED
    assert (latents[3] - latents[2]).abs().max() < 1e-10


def test_a_pictures_noise_comes_from_its_own_seed_and_step():
    scheduler = SCHEDULERS["ddim"].from_config(STABLE_DIFFUSION)
    clean = pictures(1).expand(3, -1, -1, -1)
    trajectory = Trajectory(scheduler, clean, [5, 5, 6], STEPS)
    latents = trajectory.before(1)
    assert torch.equal(latents[0], latents[1])
    assert not torch.equal(latents[0], latents[2])
    assert torch.equal(latents, trajectory.before(1))

    def noise(step):
        level = scheduler.alphas_cumprod[scheduler.timesteps[step]].double()
        return (trajectory.before(step) - level.sqrt() * clean) / (1 - level).sqrt()

    assert (noise(1) - noise(3)).abs().max() > 0.1
    assert abs(noise(1).std() - 1) < 0.2
