"""Task inversion (Emu Edit, section 4.3): the training objective, minimised over a new vector v_new alone.

The editor is frozen; only the new task's vector is learned. Without a bound it grows to several times the
others and spoils pictures, so its norm beyond the others' mean is penalised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from editor.config import Dropout
from editor.data.latents import Batch
from editor.inversion.pairs import ExamplePair
from editor.model.network import EditorNetwork
from editor.training.objective import Objective, draw, flushed_denormals
from pipeline.errors import StageError, UserError

LOGGED = 50
"""Steps between two lines of progress."""


@dataclass(frozen=True)
class Settings:
    """How v_new is learned."""

    steps: int = 500
    batch: int = 4
    learning_rate: float = 0.01
    """Of AdamW, as a share of the mean norm of the table's vectors."""
    norm_penalty: float = 1.0
    """Weight of the squared excess of the norm, as a share of the others' mean norm."""
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """The mean loss of the last steps, and the vector's norm as a multiple of the others' mean norm."""

    step: int
    loss: float
    norm: float


def learn_vector(
    network: EditorNetwork,
    pairs: Sequence[ExamplePair],
    settings: Settings,
    told: Callable[[Progress], None] = lambda _: None,
) -> torch.Tensor:
    """Learn v_new [d], beginning at the mean of the table's vectors. Nothing else changes.

    Raises:
        UserError: an instruction is too long.
        StageError: the loss is not finite.
    """
    for pair in pairs:
        if not network.prompts.fits(pair.instruction):
            raise UserError(f"{pair.name}: the instruction is longer than the text encoder reads: shorten it")
    latents = [network.encode(np.stack([pair.before, pair.after])).cpu() for pair in pairs]
    table = network.table.vectors.weight.detach()
    usual = table.norm(dim=1).mean()
    vector = table.mean(0).clone().requires_grad_(True)
    # A coordinate's usual size, so that the rate means the same for every editor.
    rate = settings.learning_rate * float(usual)
    optimizer = torch.optim.AdamW([vector], rate, weight_decay=0.0)
    objective = Objective(network)
    objective.requires_grad_(False)
    objective.ease_backward()
    steps, noise = network.scheduler.config.num_train_timesteps, latents[0].shape[1:]
    losses: list[float] = []
    for step in range(settings.steps):
        numbers = _numbers(settings, step, len(pairs))
        batch = Batch(
            torch.stack([latents[k][0] for k in numbers]),
            torch.stack([latents[k][1] for k in numbers]),
            [pairs[k].instruction for k in numbers],
            [0] * settings.batch,
        )
        whole = slice(0, settings.batch)
        draws = draw(settings.seed, step, settings.batch, whole, noise, steps, 1.0, Dropout())
        with flushed_denormals():
            loss = objective(batch, draws, vector.expand(settings.batch, -1)).mean()
            excess = (vector.norm() / usual - 1).clamp(min=0)
            if not torch.isfinite(loss):
                raise StageError(f"step {step + 1}: the loss is not finite; lower --learning-rate")
            optimizer.zero_grad(set_to_none=True)
            (loss + settings.norm_penalty * excess**2).backward()
            optimizer.step()
        losses.append(loss.item())
        if (step + 1) % LOGGED == 0:
            told(Progress(step + 1, float(np.mean(losses[-LOGGED:])), (vector.norm() / usual).item()))
    return vector.detach()


def _numbers(settings: Settings, step: int, count: int) -> list[int]:
    """The pairs of a step: every pass over the pairs has an order of its own."""
    found = []
    for position in range(step * settings.batch, (step + 1) * settings.batch):
        turn, place = divmod(position, count)
        found.append(int(np.random.default_rng([settings.seed, turn]).permutation(count)[place]))
    return found
