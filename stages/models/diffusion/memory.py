"""Estimates of the memory that a diffusion model's activations take, from its configuration.

No model library is imported, so that ``editpairs check`` can tell them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.models.diffusion import DiffusionConfig

DECODED_COPIES = 4
"""Full-size tensors that the decoder's last block holds at once: input, shortcut, convolution and its
workspace."""
ATTENDED_COPIES = 21
"""Tensors of a transformer block's width that its widest moment amounts to, in the U-Net's first level with
attention. Counted by torch's MemTracker on fake tensors in float32: 20.6 for SD 1.5 at 512 px (130 MiB a row
in all), 21.1 for SDXL at 1024 px (316 MiB)."""
JOINT_COPIES = 15.4
"""Tensors of a transformer's width over all tokens, of text and picture, that its widest moment amounts to.
Counted in the same way for FLUX.1's widths: 15.3 at 1024 px (824 MiB a row in all), 15.5 at 512 px
(280 MiB)."""
MAPS_COPIES = 23
"""The same for a conditional row whose joint attention's maps Prompt-to-Prompt mixes: 23 for FLUX.1's widths,
18 for those of Stable Diffusion 3."""
QWEN_COPIES = 14.6
"""The same for Qwen-Image's widths with two blocks: 748 MiB a row at 1024 px, 223 MiB at 512 px."""
ZIMAGE_COPIES = 16.7
"""The same for Z-Image: 1067 MiB and 313 MiB."""
PIXART_COPIES, PIXART_TEXT = 12.1, 100
"""The same for PixArt-Sigma, and the tokens of a picture that its text amounts to: 222 MiB a row at 1024 px,
60 MiB at 512 px."""
SANA_COPIES, SANA_TEXT = 14.1, 40
"""The same for Sana: 128 MiB and 36 MiB."""
SD3_COPIES, SD3_TEXT_COPIES = 13, 5.5
"""The same for Stable Diffusion 3, over the picture's tokens and over the text's; a second attention of the
picture alone adds one. Fitted to counts for the widths of 3 medium, 3.5 medium and 3.5 large."""


def pixels_per_latent(vae: Mapping[str, Any]) -> int:
    """Pixels per latent along a side."""
    return int(2 ** (len(_widths(vae)) - 1))


def _widths(vae: Mapping[str, Any]) -> list[int]:
    """The channels of a VAE's decoder by level, that of the pixels first."""
    if "base_dim" in vae:
        return [vae["base_dim"] * factor for factor in vae["dim_mult"]]
    return list(vae.get("decoder_block_out_channels") or vae["block_out_channels"])


def latent_multiple(unet: Mapping[str, Any]) -> int:
    """The number of latents by which both sides must be divisible, so that all layers' sizes are whole."""
    return int(2 ** (len(unet["block_out_channels"]) - 1))


def most_pixels(network: Mapping[str, Any], vae: Mapping[str, Any]) -> int | None:
    """The longest side in pixels for which a network has positions (Stable Diffusion 3); None: any."""
    positions = network.get("pos_embed_max_size")
    return positions and int(positions * network["patch_size"] * pixels_per_latent(vae))


def size_problems(config: DiffusionConfig, multiple: int, most: int | None) -> Iterator[str]:
    """Sizes that do not suit a model.

    Args:
        config: the section ``diffusion``.
        multiple: pixels by which both sides must be divisible.
        most: pixels of the longest side; None: any number.
    """
    key = "diffusion.buckets" if config.buckets else "diffusion.height and width"
    for size in config.sizes:
        if size is not None and (size[0] % multiple or size[1] % multiple):
            yield (
                f"{key}: {size[0]} x {size[1]}: with {config.model} both sides must be multiples of "
                f"{multiple} pixels"
            )
        elif size is not None and most is not None and max(size) > most:
            yield f"{key}: {size[0]} x {size[1]}: with {config.model} a side has at most {most} pixels"
    if config.vae_tile is not None and config.vae_tile % multiple:
        yield f"diffusion.vae_tile: it must be a multiple of {multiple} pixels, not {config.vae_tile}"


def decoding_bytes(vae: Mapping[str, Any], pixels: int, itemsize: int) -> int:
    """The largest memory of decoding one picture or tile of so many pixels."""
    channels = _widths(vae)
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


def joint_bytes(
    transformer: Mapping[str, Any], tokens: int, itemsize: int, copies: float = JOINT_COPIES
) -> int:
    """The same for one row of a transformer with joint attention, with so many tokens of text and picture."""
    return int(itemsize * copies * _width(transformer) * tokens)


def sd3_bytes(transformer: Mapping[str, Any], picture: int, text: int, itemsize: int) -> int:
    """The same for Stable Diffusion 3, whose blocks are all double, with tokens of picture and of text."""
    copies = SD3_COPIES + (1 if transformer.get("dual_attention_layers") else 0)
    return int(itemsize * _width(transformer) * (copies * picture + SD3_TEXT_COPIES * text))


def _width(transformer: Mapping[str, Any]) -> int:
    """The channels of a transformer's states; Z-Image states them as they are."""
    stated = transformer.get("dim")
    return int(stated or transformer["num_attention_heads"] * transformer["attention_head_dim"])
