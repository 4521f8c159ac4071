"""The parts of each family's pipelines, and what the configuration of its network says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stages.models.diffusion.families import FamilyName
from stages.models.diffusion.families.chat_files import LENGTH
from stages.models.diffusion.families.flux_files import PATCH, SIDE, text_length
from stages.models.diffusion.families.sd3_files import CLIP_LENGTH, T5_LENGTH
from stages.models.diffusion.memory import (
    JOINT_COPIES,
    MAPS_COPIES,
    PIXART_COPIES,
    PIXART_TEXT,
    QWEN_COPIES,
    SANA_COPIES,
    SANA_TEXT,
    ZIMAGE_COPIES,
    joint_bytes,
    latent_multiple,
    sampling_bytes,
    sd3_bytes,
)

Network = Mapping[str, Any]
"""The configuration of a U-Net or transformer."""
RowBytes = Callable[[Network, int, int], int]
"""Bytes by configuration, number of latents and item size."""


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
    row_bytes: RowBytes
    halves: bool = True
    maps_bytes: RowBytes | None = None


def _of(key: str) -> Callable[[Network], int]:
    """What a configuration says."""
    return lambda network: int(network[key])


def _always(number: int) -> Callable[[Network], int]:
    return lambda network: number


def _joint(patch: Callable[[Network], int], text: Callable[[Network], int], copies: float) -> RowBytes:
    """The memory of a row of so many tensors of the network's width, over the tokens of picture and text."""

    def row_bytes(network: Network, latents: int, itemsize: int) -> int:
        return joint_bytes(network, latents // patch(network) ** 2 + text(network), itemsize, copies)

    return row_bytes


def _sd3_bytes(network: Network, latents: int, itemsize: int) -> int:
    picture = latents // int(network["patch_size"]) ** 2
    return sd3_bytes(network, picture, SD3_LENGTH, itemsize)


SD3_LENGTH = CLIP_LENGTH + T5_LENGTH
_PACKED, _PATCHED = _always(PATCH), _of("patch_size")
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
        _PACKED,
        _always(SIDE),
        _joint(_PACKED, text_length, JOINT_COPIES),
        halves=False,
        maps_bytes=_joint(_PACKED, text_length, MAPS_COPIES),
    ),
    "sd3": Layout(
        "transformer",
        ("SD3Transformer2DModel",),
        ("transformer", "vae", "text_encoder", "text_encoder_2", *_TWO, "scheduler"),
        ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        {**_TWO, "tokenizer_3": "text_encoder_3"},
        _PATCHED,
        _of("sample_size"),
        _sd3_bytes,
        maps_bytes=_joint(_PATCHED, _always(SD3_LENGTH), MAPS_COPIES),
    ),
    "qwen": Layout(
        "transformer",
        ("QwenImageTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        _PACKED,
        _always(SIDE),
        _joint(_PACKED, _always(LENGTH), QWEN_COPIES),
        maps_bytes=_joint(_PACKED, _always(LENGTH), MAPS_COPIES),
    ),
    "zimage": Layout(
        "transformer",
        ("ZImageTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        _PACKED,
        _always(SIDE),
        _joint(_PACKED, _always(LENGTH), ZIMAGE_COPIES),
        maps_bytes=_joint(_PACKED, _always(LENGTH), MAPS_COPIES),
    ),
    "pixart": Layout(
        "transformer",
        ("PixArtTransformer2DModel", "Transformer2DModel"),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        _PATCHED,
        _of("sample_size"),
        _joint(_PATCHED, _always(PIXART_TEXT), PIXART_COPIES),
    ),
    "sana": Layout(
        "transformer",
        ("SanaTransformer2DModel",),
        ("transformer", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("transformer", "vae", "text_encoder"),
        _ONE,
        _PATCHED,
        _of("sample_size"),
        _joint(_PATCHED, _always(SANA_TEXT), SANA_COPIES),
    ),
}
