"""Estimates of the memory that a diffusion model's activations take, from its configuration.

No model library is imported, so that ``editpairs check`` can tell them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.models.diffusion import DiffusionConfig
from stages.models.weight_files import read_json

DECODED_COPIES = 4
"""Full-size tensors that the decoder's last block holds at once: input, shortcut, convolution and its
workspace."""
ATTENDED_COPIES = 21
"""Tensors of a transformer block's width that its widest moment amounts to, in the U-Net's first level with
attention. Counted by torch's MemTracker on fake tensors in float32: 20.6 for SD 1.5 at 512 px (130 MiB a row
in all), 21.1 for SDXL at 1024 px (316 MiB)."""


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


def sampling_bytes(unet: Mapping[str, Any], latents: int, itemsize: int) -> int:
    """The largest memory of the activations of one row of the U-Net's batch, with so many latents."""
    channels, layers = unet["block_out_channels"], unet.get("layers_per_block", 2)
    kinds = unet.get("down_block_types", ())
    levels = [width * latents / 4**level for level, width in enumerate(channels)]
    attended = [size for size, kind in zip(levels, kinds, strict=False) if "Attn" in kind]
    kept = (layers + 1) * sum(levels)  # for the way up
    return int(itemsize * (kept + ATTENDED_COPIES * max(attended, default=levels[0])))


def drawn_pixels(config: DiffusionConfig, folder: Path | None) -> int | None:
    """The pixels of a picture, on average over the sizes; None if a size is the model's own and unknown.

    Args:
        config: the section ``diffusion``.
        folder: the pipeline; None if it is not on this machine.

    Raises:
        ValueError: a configuration is missing or damaged.
    """
    own = None
    if None in config.sizes and folder is not None:
        unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
        own = (int(unet["sample_size"]) * pixels_per_latent(vae),) * 2
    sizes = [size or own for size in config.sizes]
    known = [size[0] * size[1] for size in sizes if size is not None]
    return round(sum(known) / len(known)) if len(known) == len(sizes) else None


def drawing_bytes(config: DiffusionConfig, folder: Path, rows: int) -> int:
    """The largest memory of activations of drawing, from the configurations in a pipeline's folder.

    Args:
        config: the section ``diffusion``.
        folder: the pipeline.
        rows: rows of the U-Net's batch.

    Raises:
        ValueError: a configuration is missing or damaged.
    """
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    scale, own = pixels_per_latent(vae), int(unet["sample_size"])
    sizes = [size or (own * scale, own * scale) for size in config.sizes]
    pixels = max(height * width for height, width in sizes)
    itemsize = {"float32": 4}.get(config.dtype, 2)
    vae_itemsize = {"float32": 4}.get(config.vae_dtype or config.dtype, 2)
    tile = min(pixels, config.vae_tile**2) if config.vae_tile else pixels
    decoded = decoding_bytes(vae, tile, vae_itemsize) * (config.vae_chunk or 1)
    return max(decoded, rows * sampling_bytes(unet, pixels // scale**2, itemsize))
