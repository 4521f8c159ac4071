"""``diffusion.negative_prompt`` takes the empty prompt's place in guidance, as in diffusers' pipelines."""

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.model import Diffusion
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion

PROMPTS, NEGATIVE = ["a red car on a beach", "a blue ball in a meadow"], "a dotted tree"


@pytest.mark.parametrize(
    ("save", "reference"),
    [(save_stable_diffusion, StableDiffusionPipeline), (save_sdxl, StableDiffusionXLPipeline)],
)
def test_latents_are_those_of_diffusers_own_pipeline(tmp_path, save, reference):
    config = DiffusionConfig(model=str(save(tmp_path)), steps=3, guidance_scale=5.0, negative_prompt=NEGATIVE)
    model = Diffusion(config)
    noise, scale = model.initial_latents([1, 2]), torch.full((2,), 5.0)
    latents = model.sample(noise, model.prompts.encode(PROMPTS), scale, [1, 2])
    pipeline = reference.from_pretrained(tmp_path)
    pipeline.scheduler = type(model.scheduler).from_config(model.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    options = {"latents": noise, "guidance_scale": 5.0, "num_inference_steps": 3, "output_type": "latent"}
    expected = pipeline(PROMPTS, negative_prompt=[NEGATIVE] * 2, **options).images
    assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()
    without = pipeline(PROMPTS, **options).images
    assert (latents - without).abs().max() > 1e-3 * expected.abs().max()


def test_one_that_the_text_encoder_cannot_read_whole_is_refused(tmp_path):
    config = DiffusionConfig(model=str(save_stable_diffusion(tmp_path)), negative_prompt="car " * 400)
    with pytest.raises(ValueError, match=r"diffusion\.negative_prompt is longer"):
        Diffusion(config)
