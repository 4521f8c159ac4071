"""The families of transformers with a language model or masked text: ours against diffusers' own pipeline."""

import re

import numpy as np
import pytest
import torch

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families.files import PipelineFiles, drawn_pixels
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.model import Diffusion
from tests.stages.drawn_families import KINDS, PROMPTS, drawn, loaded


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: kind.save(root / name) for name, kind in KINDS.items()}


def by_diffusers(kind: str, folders, model: Diffusion, output_type: str):
    noise = model.initial_latents([1, 2], KINDS[kind].size)
    return KINDS[kind].pipeline(folders[kind], model, noise, output_type)


@pytest.mark.parametrize("keys", [{}, {"negative_prompt": "a ball"}, {"guidance_scale": 0.0}, {"steps": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_those_of_diffusers_own_pipeline(folders, kind, keys):
    model = loaded(kind, folders[kind], **keys)
    assert model.guided == (model.config.guidance_scale > 1)
    expected = by_diffusers(kind, folders, model, "latent")
    latents = drawn(model)
    height, width = (side // KINDS[kind].scale for side in KINDS[kind].size)
    assert latents.shape == (2, KINDS[kind].channels, height, width)
    assert (latents - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_diffusers_own_pipeline(folders, kind):
    model = loaded(kind, folders[kind])
    expected = by_diffusers(kind, folders, model, "np")
    images, finite = model.decode(drawn(model))
    assert finite.all()
    assert images.shape == (2, *KINDS[kind].size, 3)
    assert abs(images - expected * 255).max() < 0.6, "half a level, by rounding"


@pytest.mark.parametrize("kind", KINDS)
def test_captions_of_other_lengths_in_the_batch_change_nothing(folders, kind):
    """To the bit: every prompt is read at one length."""
    model = loaded(kind, folders[kind])
    together = drawn(model, [*PROMPTS, "a ball on a red ball on a blue ball on a car"], (1, 2, 3))
    others = drawn(model, [PROMPTS[0], "a", "on"], (1, 5, 6))
    assert torch.equal(together[0], others[0])
    alone = drawn(model, PROMPTS[:1], (1,))
    assert (together[0] - alone[0]).abs().max() < 1e-5 * together.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_seen(folders, kind):
    model = loaded(kind, folders[kind])
    encoded = model.prompts.encode(PROMPTS)
    hidden = encoded.mask == 0
    assert hidden.any(1).all()
    states = torch.where(hidden[..., None], torch.randn_like(encoded.states), encoded.states)
    noise, guidance = model.initial_latents([1, 2], KINDS[kind].size), torch.full((2,), 4.0)
    first = model.sample(noise, encoded, guidance, [1, 2])
    other = model.sample(noise, type(encoded)(states, mask=encoded.mask), guidance, [1, 2])
    assert (first - other).abs().max() < 1e-5
    seen = model.sample(noise, type(encoded)(states, mask=torch.ones_like(encoded.mask)), guidance, [1, 2])
    assert (first - seen).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_fits_if_it_is_read_whole(folders, kind):
    prompts = loaded(kind, folders[kind]).prompts
    length = next(n for n in range(1, 400) if not prompts.fits(" ".join(["a"] * n)))
    longest, longer = " ".join(["a"] * (length - 1)), " ".join(["a"] * length)
    (whole,), (cut,) = prompts.encode([longest]).mask, prompts.encode([longer]).mask
    assert (whole > 0).all(), "the longest prompt that fits leaves no padding"
    assert (cut > 0).all()
    assert length > 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_comes_back_from_its_latents(folders, kind):
    """The scales of encoding undo those of decoding."""
    model = loaded(kind, folders[kind])
    pictures = np.random.default_rng(0).integers(0, 256, (2, *KINDS[kind].size, 3), np.uint8)
    latents = model.decoder.encode(pictures)
    height, width = (side // KINDS[kind].scale for side in KINDS[kind].size)
    assert latents.shape == (2, KINDS[kind].channels, height, width)
    vae, received = model.decoder.vae, []
    decode = vae.decode
    vae.decode = lambda given: received.append(given) or decode(given)
    model.decode(latents)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    framed = pixels[:, :, None] if received[0].dim() == 5 else pixels
    encoded = vae.encode(framed)
    expected = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latent
    assert (received[0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_folder_passes_the_check_and_others_settings_do_not(folders, kind):
    settings = {"model": str(folders[kind]), "height": 32, "width": 32, "guidance_scale": 4.0}
    own = {"sampler": KINDS[kind].sampler, **settings}
    assert not [*diffusion_problems(DiffusionConfig(**own))]
    for keys, message in (
        ({"sampler": "lcm"}, f"lcm does not suit .*: set {KINDS[kind].sampler}"),
        ({"width": 33}, "32 x 33: .* multiples of"),
    ):
        config = DiffusionConfig(**{**own, "steps": 3, **keys})
        [problem] = diffusion_problems(config)
        assert re.search(message, problem)
        with pytest.raises(ValueError, match=message):
            Diffusion(config)


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_tells_its_size_and_memory(folders, kind):
    files = PipelineFiles(folders[kind])
    model = loaded(kind, folders[kind], guidance_scale=0.0)
    assert files.family == kind == model.family.name
    assert files.side == model.side
    assert files.multiple == model.family.multiple * model.decoder.scale
    config = DiffusionConfig(model=str(folders[kind]), sampler=KINDS[kind].sampler, guidance_scale=0)
    assert drawn_pixels(config, folders[kind]) == files.side**2
    one = files.drawing_bytes(config, 10_000)
    guided = config.model_copy(update={"guidance_scale": 4.0})
    assert files.drawing_bytes(guided, 10_000) == 2 * one, "with unconditional rows"
