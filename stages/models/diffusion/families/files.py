"""What the files of a pipeline say, by family, without a model library."""

from pathlib import Path

from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.families import family_of
from stages.models.diffusion.families.layouts import LAYOUTS
from stages.models.diffusion.memory import decoding_bytes, pixels_per_latent
from stages.models.weight_files import read_json


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
        layout = LAYOUTS[self.family]
        halves = 2 if layout.halves and config.guidance_scale > 1 else 1
        row = halves * layout.row_bytes(self.network, latents, itemsize)
        # Unconditional rows keep their maps.
        mixed = layout.maps_bytes(self.network, latents, itemsize) if maps and layout.maps_bytes else 0
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
