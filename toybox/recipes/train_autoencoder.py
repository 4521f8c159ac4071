"""Train the toybox's AutoencoderKL: 64 px pictures to 16x16 latents with 4 channels, and back.

Training starts near the identity (an average-pooling pyramid). After the same time this is 3 dB better than
the default initialisation. Batches are 32 px crops; the last phase uses whole pictures. At the end, each
latent channel is scaled to mean 0 and standard deviation 1, folded into the quant convolutions.
"""

import math

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D

from toybox.recipes.pictures import Pictures, training_pictures
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, autocast, half
from toybox.world.render import render
from toybox.world.scene import SIZE, sample_held_out_scene

FOLDER = WEIGHTS / "diffusion" / "vae"
CHANNELS = (24, 48, 96)
LATENT_CHANNELS = 4
BATCH = 16
CROP = 32
WHOLE_PICTURES_FROM = 0.88
"""Fraction of the steps after which a batch is a quarter as many whole pictures."""
KL_WEIGHT = 0.01
SCHEDULE = Schedule(steps=3_600, learning_rate=2e-3, warmup=50, plateau=0.1, weight_decay=1e-4, average=0.998)


def build() -> AutoencoderKL:
    blocks = len(CHANNELS)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    _start_near_identity(model)
    return model


@torch.no_grad()
def _start_near_identity(model: AutoencoderKL) -> None:
    for block in model.modules():
        if isinstance(block, ResnetBlock2D):
            block.conv2.weight.mul_(0.1)
            block.conv2.bias.zero_()
            if block.conv_shortcut is not None:
                weight = block.conv_shortcut.weight
                diagonal = range(min(weight.shape[:2]))
                weight.mul_(0.3)[diagonal, diagonal, 0, 0] += 1
                block.conv_shortcut.bias.zero_()
        elif isinstance(block, Downsample2D):
            weight = block.conv.weight
            diagonal = range(weight.shape[0])
            weight.mul_(0.3)
            for k in diagonal:
                weight[k, k, :2, :2] += 0.25
            block.conv.bias.zero_()
        elif isinstance(block, Upsample2D):
            weight = block.conv.weight
            diagonal = range(weight.shape[0])
            weight.mul_(0.3)[diagonal, diagonal, 1, 1] += 1


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 [n,h,w,3] to float [n,3,h,w] in [-1,1], on the training device."""
    chw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return torch.from_numpy(chw).to(DEVICE).float() / 127.5 - 1


def _crops(pictures: Pictures, step: int, rng: np.random.Generator) -> np.ndarray:
    whole = step >= WHOLE_PICTURES_FROM * SCHEDULE.steps
    size, batch = (SIZE, BATCH // 4) if whole else (CROP, BATCH)
    crops = []
    for index in rng.integers(0, len(pictures.images), batch):
        y, x = rng.integers(0, SIZE - size + 1, 2)
        crop = pictures.images[index, y : y + size, x : x + size]
        crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return np.stack(crops)


def _loss(model: AutoencoderKL, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with autocast():
        posterior = model.encode(images).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float().clamp(-20, 10)
        latents = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        decoded = model.decode(latents).sample
    error = decoded.float() - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum() / images.numel()
    l1, l2 = error.abs().mean(), error.pow(2).mean()
    return {"loss": l1 + 2 * l2 + 0.5 * edges + KL_WEIGHT * kl, "l1": l1, "kl": kl}


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """Encode and decode pictures in [-1,1]."""
    return model.decode(model.encode(images).latent_dist.mean).sample.clamp(-1, 1)


def load_autoencoder() -> AutoencoderKL:
    """The trained autoencoder, for recipes that need its pictures or latents.

    Raises:
        FileNotFoundError: it has not been trained yet.
    """
    if not (FOLDER / "config.json").exists():
        raise FileNotFoundError(
            f"{FOLDER} is missing: run `python -m toybox.recipes.train_autoencoder` first"
        )
    return AutoencoderKL.from_pretrained(FOLDER, torch_dtype=torch.float32).to(DEVICE).eval()


def round_trip(model: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """Pictures uint8 [n,SIZE,SIZE,3], encoded and decoded."""
    with autocast():
        decoded = reconstruct(model, to_tensor(images))
    return ((decoded.float() + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(model: AutoencoderKL, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of reconstructed pictures in [-1,1]."""
    error = (reconstruct(model, images) - images).pow(2).mean().item() / 4
    return -10 * math.log10(error)


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold each latent channel's mean and standard deviation into the quant convolutions."""
    latents = torch.cat([model.encode(part).latent_dist.mean for part in images.split(64)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    n = LATENT_CHANNELS
    model.post_quant_conv.bias += torch.einsum("oc,c->o", model.post_quant_conv.weight[:, :, 0, 0], mean)
    model.post_quant_conv.weight *= std[None, :, None, None]
    model.quant_conv.weight[:n] /= std[:, None, None, None]
    model.quant_conv.bias[:n] = (model.quant_conv.bias[:n] - mean) / std
    model.quant_conv.bias[n:] -= 2 * std.log()


def main() -> None:
    pictures = training_pictures()
    rng = np.random.default_rng(3)
    unseen = to_tensor(np.stack([render(sample_held_out_scene(rng)).image for _ in range(64)]))
    torch.manual_seed(0)
    model = build().to(DEVICE, memory_format=torch.channels_last)
    training = Training("autoencoder", model, SCHEDULE, lambda: {"psnr": psnr(model, unseen)}, 1000)
    training.run(lambda step, rng: _loss(model, to_tensor(_crops(pictures, step, rng))))
    with training.averaged_weights():
        normalise_latents(model, to_tensor(pictures.images[:512]))
        half(model).save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
