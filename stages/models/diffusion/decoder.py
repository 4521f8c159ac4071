"""Decoding latents to pictures in chunks that fit into memory, and encoding pictures one by one."""

import os
from typing import Any

import numpy as np
import torch

from stages.finite import finite_rows
from stages.models.batches import full_batches
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.autoencoders import autoencoder
from stages.models.diffusion.memory import decoding_bytes, pixels_per_latent

SHARE = 0.5
"""Share of the free memory that a decoding may take by the estimate; the rest is for what it leaves out."""


class Decoder:
    """The VAE of a pipeline.

    Its last layers hold many channels at the picture's full size, so that a whole batch decoded at once would
    need more memory than the U-Net.
    """

    def __init__(self, vae: Any, config: DiffusionConfig) -> None:
        self.vae, self.chunk = vae.eval().requires_grad_(False), config.vae_chunk
        if config.vae_dtype is not None:
            self.vae.to(getattr(torch, config.vae_dtype))
        elif self.vae.config.get("force_upcast") and self.vae.dtype == torch.float16:
            self.vae.to(torch.float32)  # SDXL's VAE overflows in half precision
        self.autoencoder = autoencoder(self.vae)
        self._tile: int | None = None  # the side of a tile in latents
        if config.vae_tile is not None:
            self._tile = config.vae_tile // self.scale
            self.autoencoder.use_tiles(config.vae_tile, self._tile)

    @property
    def scale(self) -> int:
        """Pixels per latent along a side."""
        return pixels_per_latent(self.vae.config)

    def chunk_for(self, rows: int, height: int, width: int) -> int:
        """Pictures of a size in latents to decode in one call, of ``rows``.

        ``diffusion.vae_chunk``; without it, half as many as long as the estimate exceeds its share of the
        free memory.
        """
        if self.chunk is not None:
            return min(rows, self.chunk)
        tile = self._tile or max(height, width)
        sides = (min(tile, height), min(tile, width))
        pixels = sides[0] * sides[1] * self.scale**2
        each, free = decoding_bytes(self.vae.config, pixels, self.vae.dtype.itemsize), self._free()
        chunk = rows
        while chunk > 1 and chunk * each > SHARE * free:
            chunk = -(-chunk // 2)
        return chunk

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Decode latents [n,c,h,w] to pictures, uint8 [n,H,W,3], and tell which are finite, bool [n].

        A picture is not finite if its latents or decoded values contain NaN or infinity, for example after an
        overflow in half precision. Its pixels are then black and must not be used. A smaller last chunk is
        filled up, so that all calls have one shape.
        """
        chunk = self.chunk_for(len(latents), *latents.shape[-2:])
        images, finite = [], []
        for rows, filled_rows in full_batches(range(len(latents)), chunk):
            picture, whole = self._decode(latents[list(filled_rows)])
            images.append(picture[: len(rows)])
            finite.append(whole[: len(rows)])
        return np.concatenate(images), np.concatenate(finite)

    @torch.no_grad()
    def encode(self, pictures: np.ndarray) -> torch.Tensor:
        """The latents, float32 [n,c,h,w], of pictures uint8 [n,H,W,3].

        Pictures are encoded one by one, so none depends on its neighbours.
        """
        return torch.cat([self.autoencoder.encode_picture(picture) for picture in pictures])

    def _decode(self, latents: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        decoded = self.autoencoder.decode(latents).float()
        finite = finite_rows(latents) & finite_rows(decoded)
        pixels = ((decoded.nan_to_num(-1).clamp(-1, 1) + 1) * 127.5).round().byte()
        return pixels.permute(0, 2, 3, 1).cpu().numpy(), finite

    def _free(self) -> int:
        """Bytes of memory that are free on the VAE's device, torch's own reserve included."""
        if self.vae.device.type == "cuda":
            reserve = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            return torch.cuda.mem_get_info()[0] + reserve
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
