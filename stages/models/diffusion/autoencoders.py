"""The autoencoders of all families: latents to pixels and back, and what differs between their classes.

Latents are those that the network predicts, spatial [n,c,h,w]; pixels are [n,3,H,W] in [-1,1].
"""

from typing import Any

import numpy as np
import torch


class Autoencoder:
    """diffusers' ``AutoencoderKL``; latents are scaled, and shifted where its configuration says so."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The pixels of latents, in the VAE's type."""
        scaled = latents / self.vae.config.scaling_factor
        if shift := self.vae.config.get("shift_factor"):
            scaled = scaled + shift
        return self.vae.decode(scaled.to(self.vae.dtype)).sample

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The latents of pixels, float32: the means of the encoder's distributions."""
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mean.float()
        if shift := self.vae.config.get("shift_factor"):
            latents = latents - shift
        return latents * self.vae.config.scaling_factor

    def encode_picture(self, picture: np.ndarray) -> torch.Tensor:
        """The latents, float32 [1,c,h,w], of a picture uint8 [H,W,3]."""
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self.vae.device).permute(2, 0, 1)
        return self.encode(pixels[None].float() / 127.5 - 1)

    def use_tiles(self, pixels: int, latents: int) -> None:
        """Decode in tiles of so many pixels a side, which are so many latents."""
        self.vae.enable_tiling()
        self.vae.tile_sample_min_size, self.vae.tile_latent_min_size = pixels, latents


class DeepAutoencoder(Autoencoder):
    """diffusers' ``AutoencoderDC``, which is deterministic."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pixels.to(self.vae.dtype)).latent.float() * self.vae.config.scaling_factor

    def use_tiles(self, pixels: int, latents: int) -> None:
        # Neighbouring tiles share an eighth of their side, and at least one latent.
        stride = (latents - max(1, latents // 8)) * (pixels // latents)
        self.vae.enable_tiling(pixels, pixels, stride, stride)


class VideoAutoencoder(DeepAutoencoder):
    """diffusers' ``AutoencoderKLQwenImage``: a picture is a frame; channels have means and widths."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        mean, deviation = self._of_channels(latents)
        frames = (latents * deviation + mean)[:, :, None].to(self.vae.dtype)
        return self.vae.decode(frames).sample[:, :, 0]

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        frames = self.vae.encode(pixels[:, :, None].to(self.vae.dtype)).latent_dist.mean.float()
        mean, deviation = self._of_channels(frames)
        return (frames[:, :, 0] - mean) / deviation

    def _of_channels(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation [c,1,1]."""
        config = self.vae.config
        mean, deviation = (like.new_tensor(each) for each in (config.latents_mean, config.latents_std))
        return mean[:, None, None], deviation[:, None, None]


def autoencoder(vae: Any) -> Autoencoder:
    """What knows a VAE's class."""
    kinds = {"AutoencoderDC": DeepAutoencoder, "AutoencoderKLQwenImage": VideoAutoencoder}
    return kinds.get(type(vae).__name__, Autoencoder)(vae)
