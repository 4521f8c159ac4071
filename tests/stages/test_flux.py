"""FLUX.1, small and random: the loader and the loop against diffusers' own pipeline."""

import pytest
import torch
from diffusers import FluxPipeline

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.model import Diffusion
from tests.stages.tiny_pipelines import flux_transformer, save_flux

PROMPTS = ["a red car on a beach", "a blue ball"]
STEPS = 3
SIZE = (16, 24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("flux")
    return {"schnell": save_flux(root / "schnell"), "dev": save_flux(root / "dev", guidance=True)}


def loaded(folder, **keys) -> Diffusion:
    keys = {"sampler": "flow_euler", "steps": STEPS, "guidance_scale": 0.0, **keys}
    return Diffusion(DiffusionConfig(model=str(folder), height=SIZE[0], width=SIZE[1], **keys))


def drawn(model: Diffusion, seeds=(1, 2), prompts=PROMPTS) -> torch.Tensor:
    guidance = torch.full((len(prompts),), model.config.guidance_scale)
    noise = model.initial_latents(list(seeds), SIZE)
    return model.sample(noise, model.prompts.encode(list(prompts)), guidance, list(seeds))


def by_diffusers(folder, model: Diffusion, **keys) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise = model.initial_latents([1, 2], SIZE)
    return pipeline(
        PROMPTS,
        latents=FluxPipeline._pack_latents(noise, *noise.shape),
        height=SIZE[0],
        width=SIZE[1],
        guidance_scale=model.config.guidance_scale,
        num_inference_steps=STEPS,
        max_sequence_length=model.prompts.context_length,
        **keys,
    ).images


@pytest.mark.parametrize(("kind", "guidance"), [("schnell", 0.0), ("dev", 3.5)])
def test_latents_are_those_of_diffusers_own_pipeline(folders, kind, guidance):
    model = loaded(folders[kind], guidance_scale=guidance)
    assert not model.guided, "its guidance is distilled into its weights"
    packed = by_diffusers(folders[kind], model, output_type="latent")
    expected = FluxPipeline._unpack_latents(packed, *SIZE, vae_scale_factor=2)
    latents = drawn(model)
    assert latents.shape == (2, 4, 8, 12)
    assert (latents - expected).abs().max() < 1e-5 * expected.abs().max()


def test_pictures_are_those_of_diffusers_own_pipeline(folders):
    model = loaded(folders["schnell"])
    expected = by_diffusers(folders["schnell"], model, output_type="np")
    images, finite = model.decode(drawn(model))
    assert finite.all()
    assert images.shape == (2, *SIZE, 3)
    assert abs(images - expected * 255).max() < 0.6, "half a level, by rounding"


def test_dev_follows_its_guidance_and_the_pooled_prompt(folders):
    weak, strong = (drawn(loaded(folders["dev"], guidance_scale=scale)) for scale in (1.0, 6.0))
    assert not torch.allclose(weak, strong)
    model = loaded(folders["schnell"])
    encoded = model.prompts.encode(PROMPTS)
    other = type(encoded)(encoded.states, encoded.pooled.flip(0))
    noise, guidance = model.initial_latents([1, 2], SIZE), torch.zeros(2)
    first = model.sample(noise, encoded, guidance, [1, 2])
    assert not torch.allclose(first, model.sample(noise, other, guidance, [1, 2]))


def test_the_noise_levels_of_dev_depend_on_the_size(folders):
    model = loaded(folders["dev"], guidance_scale=3.5)
    small, large = (
        model.family.schedule(model.scheduler, STEPS, torch.empty(1, 4, side, side))["mu"] for side in (8, 64)
    )
    assert small < large


def test_a_prompt_fits_if_t5_reads_it_whole(folders):
    prompts = loaded(folders["schnell"]).prompts
    assert prompts.context_length == 32
    assert prompts.fits("a red car " * 10)
    assert not prompts.fits("a red car " * 11)


def test_a_core_of_plain_attention_changes_nothing():
    torch.manual_seed(1)
    network = FluxNetwork(flux_transformer(guidance=True)).double().eval()
    rows, states = torch.randn(2, 4, 8, 12).double(), torch.randn(2, 7, 16).double()
    told = {"pooled": torch.randn(2, 16).double()}
    arguments = (rows, torch.tensor(600.0), states, torch.tensor([2.0, 5.0]), told)
    with torch.no_grad():
        own = network(*arguments).sample
        network.install(
            lambda query, key, value, text: torch.nn.functional.scaled_dot_product_attention(
                query, key, value
            )
        )
        assert (network(*arguments).sample - own).abs().max() < 1e-12
