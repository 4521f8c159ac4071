"""The training loop.

A step is a function of the state, the seed and its number, so a resumed training is the same to the bit on
one machine.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from editor.config import EditorManifest
from editor.data.latents import LatentCache, ensure_cache
from editor.model.loading import load_or_begin, save_editor
from editor.model.words import add_words
from editor.training import checkpoint
from editor.training.figures import Figures
from editor.training.objective import Objective, draw, flushed_denormals
from editor.training.samples import write_samples
from editor.training.world import World
from pipeline.errors import StageError
from pipeline.shown import Terminal

_BETAS = (0.9, 0.99)


class Trainer:
    """Trains the editor of a manifest in its folder, which holds:

    cache/              latents and examples, unless ``cache`` names another folder, which trainings share
    state.safetensors   the last checkpoint
    editor/             the averaged weights at the last samples
    samples/            contact sheets of held-out edits
    log.jsonl           losses by noise level and task
    """

    def __init__(
        self,
        manifest: EditorManifest,
        folder: Path,
        console: Terminal,
        world: World,
        cache: Path | None = None,
    ) -> None:
        self.manifest, self.folder, self.console, self.world = manifest, folder, console, world
        cache = cache or folder / "cache"
        training, tasks = manifest.training, manifest.tasks
        known = tasks if manifest.data.tasks is None else {name: tasks[name] for name in manifest.data.tasks}
        torch.manual_seed(manifest.seed)
        self.network = load_or_begin(manifest.base, "base.model", known, training.zero_terminal_snr)
        folder.mkdir(parents=True, exist_ok=True)
        if world.first:
            pairs = ensure_cache(cache, manifest.data, self.network, tasks, self._encoded)
        world.wait()
        if not world.first:
            pairs = ensure_cache(cache, manifest.data, self.network, tasks)
        self.examples = LatentCache(cache, "train")
        self.held_out = LatentCache(cache, "test")
        self.about = {
            **manifest.model_dump(mode="json", include={"seed", "base", "training"}),
            "pairs": pairs,
        }
        for key in ("workers", "gpus", "accumulate"):
            self.about["training"].pop(key)
        if training.new_words and training.text_encoder:
            torch.manual_seed(manifest.seed)
            add_words(self.network, self.examples.instructions())
        self.objective = Objective(self.network)
        self.parameters = self._prepare()
        self.average = EMAModel(self.parameters, decay=training.ema, use_ema_warmup=False)
        self.optimizer = self._optimizer()
        self.state = checkpoint.State(self.parameters, self.average, self.optimizer)
        self.step = checkpoint.load(folder, self.state, self.about)
        self.figures = Figures(self.network.table.names, training.steps)

    def run(self) -> None:
        """Train to the last step; write the editor and its samples.

        Raises:
            StageError: the loss is not finite. The last checkpoint stays.
        """
        self._tell_about_data()
        watch, training = self.manifest.watch, self.manifest.training
        module = self.world.shared(self.objective)
        module.train()
        while self.step < training.steps:
            started = time.monotonic()
            with flushed_denormals():
                self._one_step(module)
            self.step += 1
            self.figures.timed(time.monotonic() - started)
            if self.step % watch.log_every == 0 and self.world.first:
                self._log()
            last = self.step == training.steps
            if (self.step % watch.checkpoint_every == 0 or last) and self.world.first:
                checkpoint.save(self.folder, self.state, self.step, self.about)
            if (self.step % watch.samples_every == 0 or last) and self.world.first:
                self.write_editor()
                module.train()
        if self.world.first and not (self.folder / "editor").exists():
            self.write_editor()

    def write_editor(self) -> None:
        """Write the averaged weights as an editor, and a contact sheet of held-out edits."""
        with self.averaged():
            save_editor(self.network, self.folder / "editor", self.manifest.sampling.guidance)
            if len(self.held_out) and self.manifest.watch.samples:
                file = self.folder / "samples" / f"{self.step:07d}.png"
                write_samples(self.network, self.held_out, self.manifest, file)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights inside the block."""
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        self.objective.eval()
        try:
            yield
        finally:
            self.average.restore(self.parameters)

    def _one_step(self, module: nn.Module) -> None:
        training = self.manifest.training
        total = training.batch
        numbers = self._numbers(self.step * total, total)
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * training.learning_rate * rate(training, self.step)
        torch.manual_seed(self.step)
        for part, synchronised in self.world.parts(total, training.accumulate):
            batch = self.examples.batch(numbers[part])
            draws = draw(
                self.manifest.seed,
                self.step,
                total,
                part,
                batch.after.shape[1:],
                self.network.scheduler.config.num_train_timesteps,
                training.noisy,
                training.drop,
            )
            with self.world.gradients(module, synchronised), self._autocast():
                losses = module(batch, draws)
                self._check_finite(losses)
                # DistributedDataParallel averages over the workers, and each sums over its parts.
                (losses.sum() * self.world.size / total).backward()
            self.figures.add(
                losses, draws.timesteps / self.network.scheduler.config.num_train_timesteps, batch.rows
            )
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, training.clip_norm)
        if not torch.isfinite(norm):
            self._stop("gradient")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.step(self.parameters)

    def _check_finite(self, losses: torch.Tensor) -> None:
        if not torch.isfinite(losses).all():
            self._stop("loss")

    def _stop(self, what: str) -> None:
        file = self.folder / checkpoint.FILE
        raise StageError(
            f"step {self.step + 1}: the {what} is not finite. The last checkpoint stays in {file}. Lower "
            "training.learning_rate, or set training.precision to float32, under another name"
        )

    def _numbers(self, first: int, count: int) -> np.ndarray:
        """The examples of a step: every epoch is a permutation of its own."""
        size = len(self.examples)
        found = []
        for position in range(first, first + count):
            epoch, place = divmod(position, size)
            found.append(self._permutation(epoch)[place])
        return np.array(found)

    def _permutation(self, epoch: int) -> np.ndarray:
        known = getattr(self, "_epoch", None)
        if known is None or known[0] != epoch:
            order = np.random.default_rng([self.manifest.seed, epoch, 1]).permutation(len(self.examples))
            known = self._epoch = (epoch, order)
        return known[1]

    def _prepare(self) -> list[nn.Parameter]:
        """Choose the trained parameters, and settings that make training faster."""
        training, network = self.manifest.training, self.network
        self.objective.requires_grad_(False)
        network.unet.requires_grad_(True)
        network.table.requires_grad_(training.task_embedding)
        if not training.task_embedding:
            torch.nn.init.zeros_(network.table.vectors.weight)
        if training.text_encoder:
            for encoder in self.objective.encoders.values():
                encoder.requires_grad_(True)
        if training.gradient_checkpointing:
            network.unet.enable_gradient_checkpointing()
        self.objective.ease_backward()
        return [parameter for parameter in self.objective.parameters() if parameter.requires_grad]

    def _optimizer(self) -> torch.optim.AdamW:
        training = self.manifest.training
        first = {id(parameter) for parameter in self.network.unet.conv_in.parameters()}
        others = [parameter for parameter in self.parameters if id(parameter) not in first]
        groups: list[dict[str, Any]] = [
            {"params": others, "factor": 1.0},
            {"params": list(self.network.unet.conv_in.parameters()), "factor": training.conv_in_factor},
        ]
        return torch.optim.AdamW(
            groups, training.learning_rate, betas=_BETAS, weight_decay=training.weight_decay
        )

    def _autocast(self) -> torch.autocast:
        enabled = self.manifest.training.precision == "bfloat16"
        return torch.autocast(self.network.device.type, torch.bfloat16, enabled=enabled)

    def _encoded(self, rows: int) -> None:
        if rows % (32 * self.manifest.data.batch) == 0:
            self.console.print(f"encoded {rows} pairs")

    def _tell_about_data(self) -> None:
        if not self.world.first:
            return
        total, held = len(self.examples), len(self.held_out)
        self.console.print(f"{self.manifest.name}: {total} examples to train on, {held} held out")
        for reason, count in self.examples.skipped.items():
            self.console.print(f"  {count} rows not used: {reason}")
        if self.step:
            self.console.print(f"continuing at step {self.step}")

    def _log(self) -> None:
        line = self.figures.line(self.step)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self.console.print(self.figures.text(line))


def rate(training: Any, step: int) -> float:
    """The learning rate of a step, as a share: linear warm-up, a plateau, then cosine decay to ``floor``."""
    if step < training.warmup:
        return (step + 1) / training.warmup
    begin = training.warmup + training.plateau * (training.steps - training.warmup)
    progress = min(1.0, max(0.0, step - begin) / max(1.0, training.steps - begin))
    return float(training.floor + (1 - training.floor) * 0.5 * (1 + math.cos(math.pi * progress)))
