"""What the files of a pipeline say, by family, without a model library."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families import FamilyName, family_of
from stages.models.diffusion.families.flux_files import PATCH, SIDE, text_length
from stages.models.diffusion.families.sd3_files import CLIP_LENGTH, T5_LENGTH
from stages.models.diffusion.memory import (
    decoding_bytes,
    joint_bytes,
    latent_multiple,
    maps_bytes,
    pixels_per_latent,
    sampling_bytes,
    sd3_bytes,
)
from stages.models.weight_files import read_json


@dataclass(frozen=True)
class Layout:
    """The parts of a family's pipelines.

    Attributes:
        network: the folder of the network.
        kind: its class.
        needed: parts that every such pipeline has.
        models: parts with weights.
        tokenizers: the text encoder that each tokenizer is for.
    """

    network: str
    kind: str
    needed: tuple[str, ...]
    models: tuple[str, ...]
    tokenizers: Mapping[str, str]


_TWO = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}
LAYOUTS: Mapping[FamilyName, Layout] = {
    "unet": Layout(
        "unet",
        "UNet2DConditionModel",
        ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        ("unet", "vae", "text_encoder", "text_encoder_2"),
        _TWO,
    ),
    "flux": Layout(
        "transformer",
        "FluxTransformer2DModel",
        ("transformer", "vae", "text_encoder", "text_encoder_2", *_TWO, "scheduler"),
        ("transformer", "vae", "text_encoder", "text_encoder_2"),
        _TWO,
    ),
    "sd3": Layout(
        "transformer",
        "SD3Transformer2DModel",
        ("transformer", "vae", "text_encoder", "text_encoder_2", *_TWO, "scheduler"),
        ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        {**_TWO, "tokenizer_3": "text_encoder_3"},
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
        return self._patch * pixels_per_latent(self.vae)

    @property
    def _patch(self) -> int:
        if self.family == "flux":
            return PATCH
        return int(self.network["patch_size"]) if self.family == "sd3" else latent_multiple(self.network)

    @property
    def side(self) -> int:
        """The side in pixels of a picture of the model's own size."""
        latents = SIDE if self.family == "flux" else int(self.network["sample_size"])
        return latents * pixels_per_latent(self.vae)

    def drawing_bytes(self, config: DiffusionConfig, rows: int, *, maps: bool = False) -> int:
        """The largest memory of activations of drawing so many pictures at once.

        Args:
            config: the section ``diffusion``.
            rows: the number of pictures.
            maps: whether Prompt-to-Prompt mixes the maps of a joint attention.
        """
        sizes = [size or (self.side, self.side) for size in config.sizes]
        pixels = max(height * width for height, width in sizes)
        itemsize = {"float32": 4}.get(config.dtype, 2)
        vae_itemsize = {"float32": 4}.get(config.vae_dtype or config.dtype, 2)
        tile = min(pixels, config.vae_tile**2) if config.vae_tile else pixels
        decoded = decoding_bytes(self.vae, tile, vae_itemsize) * (config.vae_chunk or 1)
        latents = pixels // pixels_per_latent(self.vae) ** 2
        halves = 2 if config.guidance_scale > 1 and self.family != "flux" else 1
        if self.family == "unet":
            return max(decoded, rows * halves * sampling_bytes(self.network, latents, itemsize))
        if self.family == "flux":
            text, picture = text_length(self.network), latents // PATCH**2
            row = joint_bytes(self.network, picture + text, itemsize)
        else:
            text, picture = CLIP_LENGTH + T5_LENGTH, latents // self._patch**2
            row = halves * sd3_bytes(self.network, picture, text, itemsize)
        # Unconditional rows keep their maps.
        mixed = maps_bytes(self.network, picture + text, itemsize) if maps else 0
        return max(decoded, rows * max(row, mixed))


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
