"""Task inversion (Emu Edit, section 4.3): the training objective, minimised over a new vector v_new alone.

The editor is frozen; only the new task's vector is learned. Without a bound it grows to several times the
others and spoils pictures, so its norm beyond the others' mean is penalised.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editor.config import Dropout
from editor.data.latents import Batch
from editor.inversion.pairs import ExamplePair
from editor.model.network import EditorNetwork
from editor.training.objective import Draws, Objective, draw, flushed_denormals
from pipeline.errors import StageError, UserError

LOGGED = 50
"""Steps between two lines of progress."""
PROBES = 32
"""Examples, each with its own noise, on which starts and progress are measured. They stay the same: new noise
changes the loss more from step to step than a vector can."""
_NOTHING_DROPPED = Dropout(text=0, image=0, both=0)


@dataclass(frozen=True)
class Settings:
    """How v_new is learned."""

    steps: int = 500
    batch: int = 8
    learning_rate: float = 0.03
    """Of AdamW: the way of a step, as a share of the usual norm of a task's vector. Decays to 0 (cosine)."""
    norm_penalty: float = 1.0
    """Weight of the squared excess of the norm, as a share of the others' mean norm."""
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """The loss on the probes, and the vector's norm as a multiple of the others' mean norm."""

    step: int
    loss: float
    norm: float


class _Examples:
    """Latents and instructions of the pairs, and the losses of vectors on them."""

    def __init__(self, network: EditorNetwork, pairs: Sequence[ExamplePair], settings: Settings) -> None:
        self._latents = [network.encode(np.stack([pair.before, pair.after])).cpu() for pair in pairs]
        self._pairs, self._settings = pairs, settings
        self._steps = network.scheduler.config.num_train_timesteps
        self._objective = Objective(network)
        self._objective.requires_grad_(False)
        self._objective.ease_backward()

    def loss(self, step: int, vector: Tensor) -> Tensor:
        """The mean loss of a training step."""
        batch = self._settings.batch
        draws = self._draws(self._settings.seed, step, batch, slice(0, batch), Dropout())
        return self._objective(self._batch(self._numbers(step)), draws, vector.expand(batch, -1)).mean()

    @torch.no_grad()
    def probed(self, vector: Tensor) -> float:
        """The mean loss on the probes."""
        size, losses = self._settings.batch, []
        for start in range(0, PROBES, size):
            part = slice(start, min(start + size, PROBES))
            draws = self._draws(self._settings.seed + 1, 0, PROBES, part, _NOTHING_DROPPED)
            numbers = [place % len(self._pairs) for place in range(part.start, part.stop)]
            losses += self._objective(self._batch(numbers), draws, vector.expand(len(numbers), -1)).tolist()
        return float(np.mean(losses))

    def _draws(self, seed: int, step: int, total: int, part: slice, drop: Dropout) -> Draws:
        return draw(seed, step, total, part, self._latents[0].shape[1:], self._steps, 1.0, drop)

    def _batch(self, numbers: Sequence[int]) -> Batch:
        before, after = (torch.stack([self._latents[k][side] for k in numbers]) for side in (0, 1))
        return Batch(before, after, [self._pairs[k].instruction for k in numbers], [0] * len(numbers))

    def _numbers(self, step: int) -> list[int]:
        """The pairs of a step: every pass over the pairs has an order of its own."""
        count, batch, found = len(self._pairs), self._settings.batch, []
        for position in range(step * batch, (step + 1) * batch):
            turn, place = divmod(position, count)
            order = np.random.default_rng([self._settings.seed, turn]).permutation(count)
            found.append(int(order[place]))
        return found


def learn_vector(
    network: EditorNetwork,
    pairs: Sequence[ExamplePair],
    settings: Settings,
    told: Callable[[Progress], None] = lambda _: None,
) -> Tensor:
    """Learn v_new [d]. It begins at the table's vector, or their mean, with the least loss on the pairs.

    Nothing else changes.

    Raises:
        UserError: an instruction is too long.
        StageError: the loss is not finite.
    """
    for pair in pairs:
        if not network.prompts.fits(pair.instruction):
            raise UserError(f"{pair.name}: the instruction is longer than the text encoder reads: shorten it")
    examples = _Examples(network, pairs, settings)
    table = network.table.vectors.weight.detach()
    usual = table.norm(dim=1).mean()
    vector = min([table.mean(0), *table], key=examples.probed).clone().requires_grad_(True)

    def tell(step: int) -> None:
        told(Progress(step, examples.probed(vector), (vector.norm() / usual).item()))

    # Adam moves every one of the d coordinates by about the rate, and so the vector by sqrt(d) of it.
    rate = settings.learning_rate * float(usual) / math.sqrt(len(vector))
    optimizer = torch.optim.AdamW([vector], rate, weight_decay=0.0)
    tell(0)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
        with flushed_denormals():
            loss = examples.loss(step, vector)
            excess = (vector.norm() / usual - 1).clamp(min=0)
            if not torch.isfinite(loss):
                raise StageError(f"step {step + 1}: the loss is not finite; lower --learning-rate")
            optimizer.zero_grad(set_to_none=True)
            (loss + settings.norm_penalty * excess**2).backward()
            optimizer.step()
        if (step + 1) % LOGGED == 0 or step + 1 == settings.steps:
            tell(step + 1)
    return vector.detach()
