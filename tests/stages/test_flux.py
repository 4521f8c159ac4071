"""FLUX.1, small and random: the loader and the loop against diffusers' own pipeline."""

import re
from shutil import copytree

import pytest
import torch
from diffusers import FluxPipeline
from torch.nn import functional

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families.files import PipelineFiles, drawn_pixels
from stages.models.diffusion.families.flux import FluxNetwork
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.memory import joint_bytes
from stages.models.diffusion.model import Diffusion
from tests.stages.tiny_pipelines import flux_transformer, save_flux, save_stable_diffusion

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


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("schnell", {"sampler": "ddim"}, "diffusion.sampler: ddim does not suit .*: set flow_euler"),
        ("schnell", {"guidance_scale": 3.5}, "diffusion.guidance_scale: .* takes no guidance: set 0"),
        ("dev", {"negative_prompt": "blurred"}, "diffusion.negative_prompt: .* without unconditional rows"),
        ("dev", {"width": 18}, "16 x 18: .* multiples of 4 pixels"),
    ],
)
def test_settings_that_do_not_suit_it_are_refused_by_the_check_and_at_loading(folders, kind, keys, message):
    keys = {"sampler": "flow_euler", "guidance_scale": 0.0, "height": 16, "width": 16, **keys}
    config = DiffusionConfig(model=str(folders[kind]), steps=STEPS, **keys)
    [problem] = diffusion_problems(config)
    assert re.search(message, problem)
    with pytest.raises(ValueError, match=message):
        Diffusion(config)


def test_its_sampler_does_not_suit_a_u_net(tmp_path):
    config = DiffusionConfig(model=str(save_stable_diffusion(tmp_path)), sampler="flow_euler")
    message = "does not suit .*: set ddim or euler or euler_ancestral or lcm"
    [problem] = diffusion_problems(config)
    assert re.search(message, problem)
    with pytest.raises(ValueError, match=message):
        Diffusion(config)


def test_a_pipeline_of_another_class_is_refused_with_those_supported(folders, tmp_path):
    copytree(folders["schnell"], tmp_path / "other")
    index = tmp_path / "other" / "model_index.json"
    index.write_text(index.read_text().replace("FluxPipeline", "FluxFillPipeline"))
    [problem] = diffusion_problems(DiffusionConfig(model=str(tmp_path / "other"), sampler="flow_euler"))
    assert re.search("names the pipeline FluxFillPipeline; supported are StableDiffusionPipeline,.*", problem)
    (tmp_path / "other" / "text_encoder_2" / "model.safetensors").unlink()
    index.write_text(index.read_text().replace("FluxFillPipeline", "FluxPipeline"))
    [problem] = diffusion_problems(DiffusionConfig(model=str(tmp_path / "other"), sampler="flow_euler"))
    assert "text_encoder_2" in problem


def test_the_check_tells_its_size_and_memory(folders):
    files = PipelineFiles(folders["schnell"])
    assert (files.family, files.side, files.multiple) == ("flux", 256, 4)
    config = DiffusionConfig(model=str(folders["schnell"]), sampler="flow_euler", guidance_scale=0)
    assert drawn_pixels(config, folders["schnell"]) == 256 * 256
    tokens = 64 * 64 + 256
    assert files.drawing_bytes(config, 100) == 100 * joint_bytes(files.network, tokens, 4)


def test_a_core_of_plain_attention_changes_nothing():
    torch.manual_seed(1)
    network = FluxNetwork(flux_transformer(guidance=True)).double().eval()
    rows, states = torch.randn(2, 4, 8, 12).double(), torch.randn(2, 7, 16).double()
    told = {"pooled": torch.randn(2, 16).double()}
    arguments = (rows, torch.tensor(600.0), states, torch.tensor([2.0, 5.0]), told)
    with torch.no_grad():
        own = network(*arguments).sample
        network.install(
            lambda query, key, value, text: functional.scaled_dot_product_attention(query, key, value)
        )
        assert (network(*arguments).sample - own).abs().max() < 1e-12
