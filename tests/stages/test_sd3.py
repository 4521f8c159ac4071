"""Stable Diffusion 3 and 3.5, small and random: the loader and the loop against diffusers' own pipeline."""

import json
import re

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch.nn import functional

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families.files import PipelineFiles, drawn_pixels
from stages.models.diffusion.families.sd3 import SD3Network
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.memory import sd3_bytes
from stages.models.diffusion.model import Diffusion
from tests.stages.tiny_pipelines import POOLED, WIDTH, save_sd3, sd3_transformer

PROMPTS = ["a red car on a beach", "a blue ball"]
STEPS = 4
SIZE = (16, 24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd3")
    dynamic = {"use_dynamic_shifting": True}
    return {
        "sd3": save_sd3(root / "sd3", dual=False),
        "sd35": save_sd3(root / "sd35"),
        "no t5": save_sd3(root / "no-t5", t5=False),
        "dynamic": save_sd3(root / "dynamic", **dynamic),
    }


def loaded(folder, **keys) -> Diffusion:
    keys = {"sampler": "flow_euler", "steps": STEPS, "guidance_scale": 4.0, **keys}
    return Diffusion(DiffusionConfig(model=str(folder), height=SIZE[0], width=SIZE[1], **keys))


def drawn(model: Diffusion, seeds=(1, 2), prompts=PROMPTS) -> torch.Tensor:
    guidance = torch.full((len(prompts),), model.config.guidance_scale)
    noise = model.initial_latents(list(seeds), SIZE)
    return model.sample(noise, model.prompts.encode(list(prompts)), guidance, list(seeds))


def by_diffusers(folder, model: Diffusion, **keys):
    t5 = model.prompts.t5
    left_out = {"text_encoder_3": None, "tokenizer_3": None} if t5 is None else {}
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPTS,
        latents=model.initial_latents([1, 2], SIZE),
        height=SIZE[0],
        width=SIZE[1],
        guidance_scale=model.config.guidance_scale,
        negative_prompt=model.config.negative_prompt,
        num_inference_steps=STEPS,
        max_sequence_length=256 if t5 is None else model.prompts.context_length,
        **keys,
    ).images


@pytest.mark.parametrize("keys", [{}, {"negative_prompt": "a ball"}, {"guidance_scale": 0.0}])
@pytest.mark.parametrize("kind", ["sd3", "sd35", "no t5", "dynamic"])
def test_latents_are_those_of_diffusers_own_pipeline(folders, kind, keys):
    model = loaded(folders[kind], **keys)
    assert model.guided == (model.config.guidance_scale > 1)
    expected = by_diffusers(folders[kind], model, output_type="latent")
    latents = drawn(model)
    assert latents.shape == (2, 4, 8, 12)
    assert (latents - expected).abs().max() < 1e-5 * expected.abs().max()


def test_pictures_are_those_of_diffusers_own_pipeline(folders):
    model = loaded(folders["sd35"])
    expected = by_diffusers(folders["sd35"], model, output_type="np")
    images, finite = model.decode(drawn(model))
    assert finite.all()
    assert images.shape == (2, *SIZE, 3)
    assert abs(images - expected * 255).max() < 0.6, "half a level, by rounding"


def test_its_noise_levels_are_shifted_twice(folders):
    """Levels that are even before the scheduler's shift would be other ones."""
    model = loaded(folders["sd35"])
    model.scheduler.set_timesteps(**model.family.schedule(model.scheduler, STEPS, torch.empty(1, 4, 8, 12)))
    assert model.scheduler.sigmas.tolist() == pytest.approx([1, 0.858, 0.602, 0.009, 0], abs=1e-3)


@pytest.mark.parametrize("part", ["clip", "t5", "pooled"])
def test_every_text_encoder_is_followed(folders, part):
    model = loaded(folders["sd35"])
    encoded = model.prompts.encode(PROMPTS)
    length = model.prompts.encode([""]).states.shape[1] - model.prompts.context_length
    states, pooled = encoded.states.clone(), encoded.pooled
    assert states.shape[1] == length + 32
    if part == "pooled":
        pooled = pooled.flip(0)
    else:
        own = slice(0, length) if part == "clip" else slice(length, None)
        states[:, own] = states[:, own].flip(0)
    noise, guidance = model.initial_latents([1, 2], SIZE), torch.full((2,), 4.0)
    first = model.sample(noise, encoded, guidance, [1, 2])
    other = model.sample(noise, type(encoded)(states, pooled), guidance, [1, 2])
    assert (first - other).abs().max() > 1e-5


@pytest.mark.parametrize(("kind", "ends"), [("sd35", 1), ("no t5", 2)])
def test_a_prompt_fits_if_t5_reads_it_whole_or_clip_without_t5(folders, kind, ends):
    prompts = loaded(folders[kind]).prompts
    assert prompts.context_length == 32
    assert prompts.fits(" ".join(["a"] * (32 - ends)))
    assert not prompts.fits(" ".join(["a"] * (33 - ends)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sampler": "ddim"}, "diffusion.sampler: ddim does not suit .*: set flow_euler"),
        ({"width": 18}, "16 x 18: .* multiples of 4 pixels"),
        ({"width": 100}, "16 x 100: .* a side has at most 96 pixels"),
    ],
)
def test_settings_that_do_not_suit_it_are_refused_by_the_check_and_at_loading(folders, keys, message):
    keys = {"sampler": "flow_euler", "height": 16, "width": 16, **keys}
    config = DiffusionConfig(model=str(folders["sd35"]), steps=STEPS, **keys)
    [problem] = diffusion_problems(config)
    assert re.search(message, problem)
    with pytest.raises(ValueError, match=message):
        Diffusion(config)


@pytest.mark.parametrize("kind", ["sd3", "sd35", "no t5"])
def test_a_whole_folder_passes_the_check(folders, kind):
    assert not [*diffusion_problems(DiffusionConfig(model=str(folders[kind]), sampler="flow_euler"))]


def test_a_folder_with_a_part_missing_is_refused(tmp_path):
    folder = save_sd3(tmp_path / "sd3")
    config = DiffusionConfig(model=str(folder), sampler="flow_euler")
    index = folder / "model_index.json"
    whole = json.loads(index.read_text())
    index.write_text(json.dumps({**whole, "tokenizer_3": [None, None]}))
    [problem] = diffusion_problems(config)
    assert "names only one of tokenizer_3 and text_encoder_3" in problem
    index.write_text(json.dumps(whole))
    (folder / "text_encoder_3" / "model.safetensors").unlink()
    [problem] = diffusion_problems(config)
    assert "text_encoder_3" in problem


def test_the_check_tells_its_size_and_memory(folders):
    files = PipelineFiles(folders["sd35"])
    assert (files.family, files.side, files.multiple) == ("sd3", 32, 4)
    config = DiffusionConfig(model=str(folders["sd35"]), sampler="flow_euler", guidance_scale=0)
    assert drawn_pixels(config, folders["sd35"]) == 32 * 32
    one = sd3_bytes(files.network, 8 * 8, 77 + 256, 4)
    assert files.drawing_bytes(config, 100) == 100 * one
    guided = config.model_copy(update={"guidance_scale": 4.0})
    assert files.drawing_bytes(guided, 100) == 200 * one, "with unconditional rows"


@pytest.mark.parametrize("dual", [True, False])
def test_a_core_of_plain_attention_changes_nothing(dual):
    torch.manual_seed(1)
    network = SD3Network(sd3_transformer(dual)).double().eval()
    rows, states = torch.randn(2, 4, 8, 12).double(), torch.randn(2, 7, 3 * WIDTH).double()
    told = {"pooled": torch.randn(2, 2 * POOLED).double()}
    arguments = (rows, torch.tensor(600.0), states, None, told)
    with torch.no_grad():
        own = network(*arguments).sample
        network.install(
            lambda query, key, value, text: functional.scaled_dot_product_attention(query, key, value)
        )
        assert (network(*arguments).sample - own).abs().max() < 1e-12
