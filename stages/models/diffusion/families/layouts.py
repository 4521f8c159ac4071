"""The parts of each family's pipelines, and what the configuration of its network says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.models.diffusion.families import FamilyName
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
    joint_bytes,
    latent_multiple,
    maps_bytes,
    sampling_bytes,
    sd3_bytes,
)

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
        maps_bytes: as ``row_bytes`` for a row whose joint attention's maps are mixed; None for others.
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
    maps_bytes: Callable[[Network, int, int], int] | None = None


def _flux_tokens(network: Network, latents: int) -> int:
    return latents // PATCH**2 + text_length(network)


def _flux_bytes(network: Network, latents: int, itemsize: int) -> int:
    return joint_bytes(network, _flux_tokens(network, latents), itemsize)


def _flux_maps(network: Network, latents: int, itemsize: int) -> int:
    return maps_bytes(network, _flux_tokens(network, latents), itemsize)


def _sd3_bytes(network: Network, latents: int, itemsize: int) -> int:
    picture = latents // int(network["patch_size"]) ** 2
    return sd3_bytes(network, picture, CLIP_LENGTH + T5_LENGTH, itemsize)


def _sd3_maps(network: Network, latents: int, itemsize: int) -> int:
    tokens = latents // int(network["patch_size"]) ** 2 + CLIP_LENGTH + T5_LENGTH
    return maps_bytes(network, tokens, itemsize)


def _qwen_bytes(network: Network, latents: int, itemsize: int) -> int:
    return joint_bytes(network, latents // PATCH**2 + LENGTH, itemsize, QWEN_COPIES)


def _qwen_maps(network: Network, latents: int, itemsize: int) -> int:
    return maps_bytes(network, latents // PATCH**2 + LENGTH, itemsize)


def _zimage_bytes(network: Network, latents: int, itemsize: int) -> int:
    return joint_bytes(_one_head(network), latents // PATCH**2 + LENGTH, itemsize, ZIMAGE_COPIES)


def _zimage_maps(network: Network, latents: int, itemsize: int) -> int:
    return maps_bytes(_one_head(network), latents // PATCH**2 + LENGTH, itemsize)


def _one_head(network: Network) -> Network:
    """The width of Z-Image's transformer by the keys of the others."""
    return {"num_attention_heads": 1, "attention_head_dim": network["dim"]}


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
        maps_bytes=_flux_maps,
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
        maps_bytes=_sd3_maps,
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
        maps_bytes=_qwen_maps,
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
        maps_bytes=_zimage_maps,
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
