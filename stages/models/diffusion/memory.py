"""Estimates of the memory that a diffusion model's activations take, from its configuration.

No model library is imported, so that ``editpairs check`` can tell them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.models.diffusion import DiffusionConfig

DECODED_COPIES = 4
"""Full-size tensors that the decoder's last block holds at once: input, shortcut, convolution and its
workspace. Measured 3.7 in float32 on a CPU (docs/benchmarks.md)."""


def pixels_per_latent(vae: Mapping[str, Any]) -> int:
    """Pixels per latent along a side."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def latent_multiple(unet: Mapping[str, Any]) -> int:
    """The number of latents by which both sides must be divisible, so that all layers' sizes are whole."""
    return int(2 ** (len(unet["block_out_channels"]) - 1))


def size_problems(config: DiffusionConfig, multiple: int) -> Iterator[str]:
    """Sizes that do not suit a model whose pictures' sides are multiples of ``multiple`` pixels."""
    key = "diffusion.buckets" if config.buckets else "diffusion.height and width"
    for size in config.sizes:
        if size is not None and (size[0] % multiple or size[1] % multiple):
            yield (
                f"{key}: {size[0]} x {size[1]}: with {config.model} both sides must be multiples of "
                f"{multiple} pixels"
            )
    if config.vae_tile is not None and config.vae_tile % multiple:
        yield f"diffusion.vae_tile: it must be a multiple of {multiple} pixels, not {config.vae_tile}"


def decoding_bytes(vae: Mapping[str, Any], pixels: int, itemsize: int) -> int:
    """The largest memory of decoding one picture or tile of so many pixels."""
    channels = vae["block_out_channels"]
    widest = channels[min(1, len(channels) - 1)]  # the channels that arrive at the last block, at full size
    return int(pixels * widest * itemsize * DECODED_COPIES)
