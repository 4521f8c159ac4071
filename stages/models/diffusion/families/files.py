"""What the files of a pipeline say, by family, without a model library."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families import FamilyName, family_of
from stages.models.diffusion.families.chat_files import LENGTH
from stages.models.diffusion.families.flux_files import PATCH, SIDE, text_length
from stages.models.diffusion.families.sd3_files import CLIP_LENGTH, T5_LENGTH
from stages.models.diffusion.memory import (
    PIXART_COPIES,
    PIXART_TEXT,
    QWEN_COPIES,
    SANA_COPIES,
    SANA_TEXT,
    ZIMAGE_COPIES,
    decoding_bytes,
    joint_bytes,
    latent_multiple,
    pixels_per_latent,
    sampling_bytes,
    sd3_bytes,
)
from stages.models.weight_files import read_json

Network = Mapping[str, Any]
"""The configuration of a U-Net or transformer."""


@dataclass(frozen=True)
class Layout:
    """The parts of a family's pipelines, and what the configuration of the network says.

    Attributes:
        network: the folder of the network.
        kinds: names of its class; folders of before 2024 have an older one.
        needed: parts that every such pipeline has.
        models: parts with weights.
        tokenizers: the text encoder that each tokenizer is for.
        patch: the number of latents by which both sides must be divisible.
        side: the side in latents of a picture of the model's own size.
        row_bytes: the memory of activations of one row, of a picture of so many latents, by item size.
        halves: whether there are unconditional rows with guidance.
    """

    network: str
    kinds: tuple[str, ...]
    needed: tuple[str, ...]
    models: tuple[str, ...]
    tokenizers: Mapping[str, str]
    patch: Callable[[Network], int]
    side: Callable[[Network], int]
    row_bytes: Callable[[Network, int, int], int]
    halves: bool = True


def _flux_bytes(network: Network, latents: int, itemsize: int) -> int:
    return joint_bytes(network, latents // PATCH**2 + text_length(network), itemsize)


def _sd3_bytes(network: Network, latents: int, itemsize: int) -> int:
    picture = latents // int(network["patch_size"]) ** 2
    return sd3_bytes(network, picture, CLIP_LENGTH + T5_LENGTH, itemsize)


def _qwen_bytes(network: Network, latents: int, itemsize: int) -> int:
    return joint_bytes(network, latents // PATCH**2 + LENGTH, itemsize, QWEN_COPIES)


def _zimage_bytes(network: Network, latents: int, itemsize: int) -> int:
    heads = {"num_attention_heads": 1, "attention_head_dim": network["dim"]}
    return joint_bytes(heads, latents // PATCH**2 + LENGTH, itemsize, ZIMAGE_COPIES)


def _pixart_bytes(network: Network, latents: int, itemsize: int) -> int:
    tokens = latents // int(network["patch_size"]) ** 2 + PIXART_TEXT
    return joint_bytes(network, tokens, itemsize, PIXART_COPIES)


def _sana_bytes(network: Network, latents: int, itemsize: int) -> int:
    tokens = latents // int(network["patch_size"]) ** 2 + SANA_TEXT
    return joint_bytes(network, tokens, itemsize, SANA_COPIES)


def _of(key: str) -> Callable[[Network], int]:
    """What a configuration says."""
    return lambda network: int(network[key])


_ONE = {"tokenizer": "text_encoder"}
_TWO = {**_ONE, "tokenizer_2": "text_encoder_2"}
LAYOUTS: Mapping[FamilyName, Layout] = {
    "unet": Layout(
        "unet",
        ("UNet2DConditionModel",),
        ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("unet", "vae", "text_encoder", "text_encoder_2"),
        _TWO,
        latent_multiple,
        _of("sample_size"),
        sampling_bytes,
    ),
    "flux": Layout(
        "transformer",
        ("FluxTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "text_encoder_2", *_TWO, "scheduler"),
        ("transformer", "vae", "text_encoder", "text_encoder_2"),
        _TWO,
        lambda network: PATCH,
        lambda network: SIDE,
        _flux_bytes,
        halves=False,
    ),
    "sd3": Layout(
        "transformer",
        ("SD3Transformer2DModel",),
        ("transformer", "vae", "text_encoder", "text_encoder_2", *_TWO, "scheduler"),
        ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        {**_TWO, "tokenizer_3": "text_encoder_3"},
        _of("patch_size"),
        _of("sample_size"),
        _sd3_bytes,
    ),
    "qwen": Layout(
        "transformer",
        ("QwenImageTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        lambda network: PATCH,
        lambda network: SIDE,
        _qwen_bytes,
    ),
    "zimage": Layout(
        "transformer",
        ("ZImageTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        lambda network: PATCH,
        lambda network: SIDE,
        _zimage_bytes,
    ),
    "pixart": Layout(
        "transformer",
        ("PixArtTransformer2DModel", "Transformer2DModel"),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        _of("patch_size"),
        _of("sample_size"),
        _pixart_bytes,
    ),
    "sana": Layout(
        "transformer",
        ("SanaTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        _of("patch_size"),
        _of("sample_size"),
        _sana_bytes,
    ),
}


class PipelineFiles:
    """A pipeline's folder.

    Raises:
        ValueError: a configuration is missing or damaged, or the pipeline's class is not supported.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "model_index.json"
        self.family = family_of(read_json(index).get("_class_name"), str(index))
        self.network = read_json(folder / LAYOUTS[self.family].network / "config.json")
        self.vae = read_json(folder / "vae" / "config.json")

    @property
    def multiple(self) -> int:
        """The number of pixels by which both sides of a picture must be divisible."""
        return LAYOUTS[self.family].patch(self.network) * pixels_per_latent(self.vae)

    @property
    def side(self) -> int:
        """The side in pixels of a picture of the model's own size."""
        return LAYOUTS[self.family].side(self.network) * pixels_per_latent(self.vae)

    def drawing_bytes(self, config: DiffusionConfig, rows: int) -> int:
        """The largest memory of activations of drawing so many pictures at once."""
        sizes = [size or (self.side, self.side) for size in config.sizes]
        pixels = max(height * width for height, width in sizes)
        itemsize = {"float32": 4}.get(config.dtype, 2)
        vae_itemsize = {"float32": 4}.get(config.vae_dtype or config.dtype, 2)
        tile = min(pixels, config.vae_tile**2) if config.vae_tile else pixels
        decoded = decoding_bytes(self.vae, tile, vae_itemsize) * (config.vae_chunk or 1)
        latents = pixels // pixels_per_latent(self.vae) ** 2
        layout = LAYOUTS[self.family]
        rows *= 2 if layout.halves and config.guidance_scale > 1 else 1
        return max(decoded, rows * layout.row_bytes(self.network, latents, itemsize))


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
        own = (PipelineFiles(folder).side,) * 2
    sizes = [size or own for size in config.sizes]
    known = [size[0] * size[1] for size in sizes if size is not None]
    return round(sum(known) / len(known)) if len(known) == len(sizes) else None
