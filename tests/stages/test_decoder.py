"""Decoding in chunks and tiles: the same pictures, less memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.folder import diffusion_problems
from stages.models.diffusion.memory import decoding_bytes
from stages.models.diffusion.model import Diffusion
from tests.stages.tiny_pipelines import save_stable_diffusion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_stable_diffusion(tmp_path_factory.mktemp("sd"))


def model(folder, **keys) -> Diffusion:
    return Diffusion(DiffusionConfig(model=str(folder), **keys))


def called(loaded: Diffusion, monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of latents that the VAE decodes from now on."""
    shapes, decode = [], loaded.decoder.vae.decode
    monkeypatch.setattr(
        loaded.decoder.vae, "decode", lambda latents: shapes.append(tuple(latents.shape)) or decode(latents)
    )
    return shapes


def test_chunks_decode_the_same_pictures(folder, monkeypatch):
    whole, chunked = model(folder), model(folder, vae_chunk=2)
    latents = whole.initial_latents([1, 2, 3, 4, 5])
    calls = called(chunked, monkeypatch)
    (expected, all_finite), (images, finite) = whole.decode(latents), chunked.decode(latents)
    assert calls == [(2, 4, 8, 8)] * 3, "the last chunk is filled up"
    assert images.shape == expected.shape
    assert (images.astype(int) - expected).max() <= 1
    assert finite.tolist() == all_finite.tolist() == [True] * 5


def test_what_is_not_finite_is_told_of_its_own_picture(folder):
    chunked = model(folder, vae_chunk=2)
    latents = chunked.initial_latents([1, 2, 3])
    latents[2, 0, 0, 0] = torch.nan
    assert chunked.decode(latents)[1].tolist() == [True, True, False]


def test_the_chunk_follows_from_the_free_memory(folder, monkeypatch):
    loaded = model(folder)
    each = decoding_bytes(loaded.decoder.vae.config, 16 * 16, 4)
    for free, chunk in ((1 << 40, 12), (24 * each, 12), (12 * each, 6), (5 * each, 2), (0, 1)):
        monkeypatch.setattr(loaded.decoder, "_free", lambda free=free: free)
        assert loaded.decoder.chunk_for(12, 8, 8) == chunk


def test_tiles_decode_nearly_the_same_picture(folder, monkeypatch):
    whole, tiled = model(folder), model(folder, vae_tile=16)
    latents = whole.initial_latents([1], (32, 48))
    seen = []
    tiled.decoder.vae.decoder.register_forward_pre_hook(lambda _m, given: seen.append(given[0].shape[-2:]))
    expected, images = whole.decode(latents)[0], tiled.decode(latents)[0]
    assert max(max(shape) for shape in seen) == 8, "no tile is larger than 16 pixels"
    assert images.shape == expected.shape == (1, 32, 48, 3)
    assert np.abs(images.astype(int) - expected).mean() < 25


def test_the_vae_has_a_precision_of_its_own(folder):
    assert model(folder).decoder.vae.dtype == torch.float32
    assert model(folder, dtype="bfloat16").decoder.vae.dtype == torch.bfloat16
    assert model(folder, dtype="bfloat16", vae_dtype="float32").decoder.vae.dtype == torch.float32
    assert model(folder, dtype="float16").decoder.vae.dtype == torch.float32, "it overflows in float16"
    images, finite = model(folder, vae_dtype="bfloat16").decode(torch.zeros(1, 4, 8, 8))
    assert finite.all()
    assert images.dtype == np.uint8


PEAK = """
import re, sys, torch
from pathlib import Path
from diffusers import AutoencoderKL
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.decoder import Decoder
from stages.models.diffusion.memory import decoding_bytes

def peak():  # not ru_maxrss, which begins with the memory of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])


torch.set_num_threads(1)
vae = AutoencoderKL(
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    block_out_channels=(32, 64), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=16,
    mid_block_add_attention=False,
)
peaks, latents = [], torch.randn(8, 4, 96, 96)
Decoder(vae, DiffusionConfig(model="m", vae_chunk=1)).decode(latents[:1, :, :16, :16])  # loads kernels
for chunk in (1, 2, 8):
    before = peak()
    Decoder(vae, DiffusionConfig(model="m", vae_chunk=chunk)).decode(latents)
    peaks.append(peak() - before)
print(decoding_bytes(vae.config, 192 * 192, 4), *peaks)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak")
def test_the_peak_memory_of_decoding_is_bounded_by_the_chunk():
    """The process's own peak: it grows with the chunk, and the estimate is of its size."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    each, one, two, eight = map(int, done.stdout.split())
    chunked, whole = one + two, one + two + eight
    assert chunked < 6 * each
    assert 6 * each < whole < 24 * each
    assert whole > 1.7 * chunked, "the whole batch at once needs several times as much"


def test_files_of_a_variant_are_checked_and_loaded(tmp_path):
    from diffusers import StableDiffusionPipeline

    plain = save_stable_diffusion(tmp_path / "plain")
    half = StableDiffusionPipeline.from_pretrained(plain, safety_checker=None)
    half.save_pretrained(tmp_path / "half", variant="fp16", safe_serialization=True)
    config = DiffusionConfig(model=str(tmp_path / "half"), variant="fp16")
    assert list(diffusion_problems(config)) == []
    assert Diffusion(config).unet.dtype == torch.float32
    [problem] = diffusion_problems(DiffusionConfig(model=str(tmp_path / "half")))
    assert "diffusion_pytorch_model.safetensors" in problem
