"""The loader and the loop on both families, small and random; against diffusers' own pipelines."""

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from pydantic import ValidationError

from stages.edit.prompt_to_prompt.alignment import TokenMap, token_map, tokenize
from stages.edit.prompt_to_prompt.attention import begin, install
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from stages.models.diffusion.sampler import sample
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion

PROMPTS = ["a red car on a beach", "a blue ball in a meadow"]
STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {"sd": save_stable_diffusion(root / "sd"), "sdxl": save_sdxl(root / "sdxl")}


def loaded(folder, **keys) -> Diffusion:
    return Diffusion(DiffusionConfig(model=str(folder), steps=STEPS, **keys))


def drawn(model: Diffusion, seeds=(1, 2), prompts=PROMPTS) -> torch.Tensor:
    guidance = torch.full((len(prompts),), model.config.guidance_scale)
    noise = model.initial_latents(list(seeds))
    return model.sample(noise, model.prompts.encode(list(prompts)), guidance, list(seeds))


@pytest.mark.parametrize(
    ("family", "reference"), [("sd", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)]
)
@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_latents_are_those_of_diffusers_own_pipeline(folders, family, reference, guidance):
    model = loaded(folders[family], guidance_scale=guidance)
    pipeline = reference.from_pretrained(folders[family])
    pipeline.scheduler = type(model.scheduler).from_config(model.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPTS,
        latents=model.initial_latents([1, 2]),
        guidance_scale=guidance,
        num_inference_steps=STEPS,
        output_type="latent",
    ).images
    assert model.guided == (guidance > 1)
    assert (drawn(model) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_sdxl_follows_its_pooled_prompt(folders):
    model = loaded(folders["sdxl"])
    encoded = model.prompts.encode(PROMPTS)
    assert encoded.states.shape[-1] == 32
    assert encoded.pooled.shape == (2, 8)
    assert not model.prompts.empty.states.any(), "an empty prompt is zeros, as it was trained"
    other = type(encoded)(encoded.states, encoded.pooled.flip(0))
    noise, guidance = model.initial_latents([1, 2]), torch.full((2,), 5.0)
    first = model.sample(noise, encoded, guidance, [1, 2])
    assert not torch.allclose(first, model.sample(noise, other, guidance, [1, 2]))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_prompt_to_prompt_controls_both_families(folders, family):
    model = loaded(folders[family], guidance_scale=5.0)
    layers = install(model.unet)
    source, target = (tokenize(model.prompts.tokenizer, text) for text in PROMPTS)
    length = model.prompts.context_length
    gates = cross_gate(STEPS, length, (0, 1)), self_gate(STEPS, (0, 1))
    mask = torch.zeros(16, 16)
    mask[4:12, 4:12] = 1
    edit = EditRow(0, token_map(source, target, length), *gates, mask=mask)
    control = PromptToPrompt([edit], 1, STEPS, 16, model.device)
    begin(layers, control)
    noise, prompts = model.initial_latents([1]), model.prompts.encode(PROMPTS)
    latents = model.sample(torch.cat([noise, noise]), prompts, torch.full((2,), 5.0), [1, 1], control)
    changed = (latents[0] - latents[1]).abs().amax(0) > 0
    assert changed[2:6, 2:6].any()
    changed[2:6, 2:6] = False
    assert not changed.any()
    images, finite = model.decode(latents)
    assert finite.all()
    assert images.dtype == np.uint8
    assert images.shape == (2, 16, 16, 3)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "lcm"])
def test_a_rows_noise_depends_on_its_seed_alone(folders, sampler):
    model = loaded(folders["sd"], sampler=sampler, guidance_scale=5.0)
    first, second = drawn(model, (1, 2)), drawn(model, (1, 3))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_a_model_distilled_with_its_guidance_has_no_unconditional_rows(tmp_path):
    model = loaded(save_stable_diffusion(tmp_path, time_cond_proj_dim=8), sampler="lcm", guidance_scale=8.0)
    assert not model.guided
    assert model.family.guidance_embedding(torch.tensor([8.0, 2.0])).shape == (2, 8)
    assert drawn(model).isfinite().all()


def test_multistep_solvers_are_refused_with_the_reason(folders):
    with pytest.raises(ValidationError, match="keep earlier predictions"):
        DiffusionConfig(model="m", sampler="dpm++")
    model = loaded(folders["sd"])
    scheduler = DPMSolverMultistepScheduler()
    with pytest.raises(ValueError, match="keeps more than the latents"):
        sample(model.unet, scheduler, torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 16), None, torch.ones(1), 2)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_the_loop_never_waits_for_the_device(folders, sampler):
    """On ``meta``, which has no values, waiting for one fails, as it would stall a GPU."""
    model = loaded(folders["sd"], sampler=sampler, guidance_scale=5.0)
    unet, device = model.unet.to("meta"), torch.device("meta")
    tokens = TokenMap(torch.eye(16), torch.zeros(16))
    gates = cross_gate(STEPS, 16, (0, 1)), self_gate(STEPS, (0, 1))
    control = PromptToPrompt([EditRow(0, tokens, *gates, mask=torch.ones(16, 16))], 1, STEPS, 16, device)
    begin(install(unet), control)
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    noise, cond = torch.randn(2, 4, side, side, device=device), torch.randn(2, 16, width, device=device)
    guidance = torch.ones(2, device=device)
    drawn = sample(unet, model.scheduler, noise, cond, cond[0], guidance, STEPS, control)
    assert drawn.shape == noise.shape
    with pytest.raises((NotImplementedError, RuntimeError)):
        sample(unet, model.scheduler, noise, cond, cond[0], guidance, STEPS, _Waits())


class _Waits:
    def before_sampling(self, states: torch.Tensor, size: tuple[int, int]) -> None:
        pass

    def before_step(self, step: int) -> None:
        pass

    def after_step(self, step: int, latents: torch.Tensor) -> torch.Tensor:
        return latents * float(latents.max())


def test_whether_a_prompt_fits_is_known_before_it_is_cut(folders):
    prompts = loaded(folders["sd"]).prompts
    assert prompts.fits("a red car " * 10)
    assert not prompts.fits("a red car " * 11)
