"""The training objective of Emu Edit, and the random draws of a step.

Minimised over theta and v: E || eps - eps_theta(z_t, t, E(c_I), c_T, v_i) ||^2 (Emu Edit, equation 2), or its
v-prediction form (Salimans and Ho 2022) if the model predicts v.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from editor.config import Dropout
from editor.data.latents import Batch
from editor.model.network import EditorNetwork
from stages.seeds import derive_seed


@dataclass(frozen=True)
class Draws:
    """The random part of a batch: time steps [n], noise [n,c,h,w], and bool [n]: dropped conditions."""

    timesteps: Tensor
    noise: Tensor
    no_text: np.ndarray
    no_image: np.ndarray


def draw(
    seed: int,
    step: int,
    total: int,
    part: slice,
    shape: Sequence[int],
    steps: int,
    noisy: float,
    drop: Dropout,
) -> Draws:
    """Draw for a part of a step's batch. The draws of an example do not depend on how the batch is divided.

    Args:
        total: examples in the whole batch. Their time steps are stratified.
        part: the part's positions in the batch.
        shape: shape [c,h,w] of a latent.
        steps: time steps of the noise schedule.
        noisy: exponent p of the time steps, t = 1 - u**p.
    """
    random = np.random.default_rng([seed, step])
    place, dropped = random.random(total), random.random(total)
    u = (np.arange(total) + place) / total
    timesteps = np.minimum((1 - u**noisy) * steps, steps - 1).astype(np.int64)
    noise = [
        torch.randn(tuple(shape), generator=torch.Generator().manual_seed(derive_seed(seed, step, position)))
        for position in range(part.start, part.stop)
    ]
    image_only = drop.text + drop.both
    no_text, no_image = dropped < image_only, (dropped >= drop.text) & (dropped < image_only + drop.image)
    chosen = torch.from_numpy(timesteps[part])
    return Draws(chosen, torch.stack(noise), no_text[part], no_image[part])


class Objective(nn.Module):
    """Loss of each example. Its parameters are those of the U-Net, the task table and the text encoders."""

    def __init__(self, network: EditorNetwork) -> None:
        super().__init__()
        self.network = network
        self.unet, self.table = network.unet, network.table
        names = ("text_encoder", "text_encoder_2")
        found = {name: getattr(network.pipeline, name, None) for name in names}
        self.encoders = nn.ModuleDict(
            {name: encoder for name, encoder in found.items() if encoder is not None}
        )
        self.register_buffer("signal", network.scheduler.alphas_cumprod.to(network.device), persistent=False)
        self.predicts_v = network.scheduler.config.prediction_type == "v_prediction"

    def forward(self, batch: Batch, draws: Draws, vectors: Tensor | None = None) -> Tensor:
        """The squared error [n] of the prediction for each example, averaged over its latent.

        ``vectors`` [n,d] take the place of the table's.
        """
        network, device = self.network, self.network.device
        timesteps, noise = draws.timesteps.to(device), draws.noise.to(device)
        after = batch.after.to(device) * network.vae.config.scaling_factor
        kept = torch.from_numpy(~draws.no_image).to(device)[:, None, None, None]
        before = batch.before.to(device) * kept
        share = self.signal[timesteps][:, None, None, None]
        noisy = share.sqrt() * after + (1 - share).sqrt() * noise
        target = share.sqrt() * noise - (1 - share).sqrt() * after if self.predicts_v else noise
        texts = ["" if empty else text for text, empty in zip(batch.instructions, draws.no_text, strict=True)]
        if vectors is None:
            vectors = network.vectors(batch.rows)
        conditions = network.conditions(texts, vectors)
        height, width = (side * network.scale for side in after.shape[-2:])
        added = network.added_conditions(conditions.pooled, height, width)
        inputs = torch.cat([noisy, before], 1).to(network.unet.dtype)
        predicted = self.unet(inputs, timesteps, conditions.states, added_cond_kwargs=added).sample
        return (predicted.float() - target).pow(2).mean((1, 2, 3))

    def ease_backward(self) -> None:
        """Use plain attention on a CPU, where the backward pass of fused attention is slow."""
        if self.network.device.type == "cpu":
            self.unet.set_attn_processor(AttnProcessor())
            for encoder in self.encoders.values():
                encoder.set_attn_implementation("eager")


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat denormal numbers, with which CPUs are slow, as zero. This concerns the whole process."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
