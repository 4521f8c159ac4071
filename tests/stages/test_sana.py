"""What Sana alone has: a scheduler with a name of its own for its shift, an instruction, and deep latents."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.model import Diffusion
from tests.stages.drawn_families import KINDS, PROMPTS, loaded
from tests.stages.tiny_cross_pipelines import save_sana


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return KINDS["sana"].save(tmp_path_factory.mktemp("sana"))


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_its_noise_levels_are_those_of_the_published_scheduler(folder, steps):
    model = loaded("sana", folder)
    model.scheduler.set_timesteps(**model.family.schedule(model.scheduler, steps, torch.empty(1, 4, 8, 8)))
    published = DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler")
    published.set_timesteps(steps)
    assert model.scheduler.config.shift == 3
    assert (model.scheduler.sigmas - published.sigmas).abs().max() < 1e-6


def test_its_step_is_the_first_order_of_the_published_scheduler(folder):
    model = loaded("sana", folder)
    steps = 5
    model.scheduler.set_timesteps(**model.family.schedule(model.scheduler, steps, torch.empty(1, 4, 8, 8)))
    published = DPMSolverMultistepScheduler.from_pretrained(folder, subfolder="scheduler", solver_order=1)
    published.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    first = second = torch.randn(1, 4, 8, 8, generator=generator)
    for own, other in zip(model.scheduler.timesteps, published.timesteps, strict=True):
        velocity = torch.randn(1, 4, 8, 8, generator=generator)
        first = model.scheduler.step(velocity, own, first).prev_sample
        second = published.step(velocity, other, second).prev_sample
        assert (first - second).abs().max() < 1e-5


def test_the_instruction_leads_prompts_but_not_the_unwanted_one(folder):
    model = loaded("sana", folder, negative_prompt="a ball")
    alone = model.prompts.alone("a ball")
    assert torch.equal(model.unwanted.states, alone.states)
    assert not torch.equal(model.prompts.encode(["a ball"]).states, alone.states)
    assert torch.equal(model.prompts.encode(["A Ball "]).states, model.prompts.encode(["a ball"]).states)


def test_sana_1_5_has_norms_of_queries_and_keys(tmp_path):
    folder = save_sana(tmp_path, qk_norm="rms_norm_across_heads")
    model = loaded("sana", folder)
    noise = model.initial_latents([1, 2], KINDS["sana"].size)
    expected = KINDS["sana"].pipeline(folder, model, noise, "latent")
    drawn = model.sample(noise, model.prompts.encode(PROMPTS), torch.full((2,), 4.0), [1, 2])
    assert (drawn - expected).abs().max() < 1e-5 * expected.abs().max()


def test_sana_sprint_is_refused(tmp_path):
    """It is a consistency model: it is told its guidance, and its sampler adds noise."""
    folder = save_sana(tmp_path, guidance_embeds=True)
    index = (folder / "model_index.json").read_text()
    config = DiffusionConfig(model=str(folder), sampler="flow_euler")
    message = "is told its guidance"
    [problem] = diffusion_problems(config)
    assert message in problem
    with pytest.raises(ValueError, match=message):
        Diffusion(config)
    (folder / "model_index.json").write_text(index.replace("SanaPipeline", "SanaSprintPipeline"))
    [problem] = diffusion_problems(config)
    assert "SanaSprintPipeline" in problem
