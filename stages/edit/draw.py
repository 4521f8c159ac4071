"""Sampling a batch of edits: every row's source and candidates are rows of one U-Net batch."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from stages.base import Decision, kept
from stages.diffusion.model import Diffusion
from stages.diffusion.prompts import join
from stages.edit import EditConfig
from stages.edit.alignment import tokenize
from stages.edit.attention import install
from stages.edit.composite import paste_outside
from stages.edit.control import PromptToPrompt
from stages.edit.gates import cross_gate, self_gate
from stages.edit.recipe import (
    Strength,
    draw_strength,
    edit_row,
    local_blend,
    windows,
    with_candidates,
)
from stages.images import encode_png
from stages.mask.soft_mask import edit_mask, regions
from stages.pair import anchor_and_edit_prompts
from stages.score.fidelity import as_float, mean_change
from stages.tasks import Candidate, Task, Tasks


class Drawing:
    """The diffusion model with Prompt-to-Prompt's attention installed."""

    def __init__(self, config: EditConfig, tasks: Tasks) -> None:
        self.config, self.tasks = config, with_candidates(tasks, config.candidates)
        tasks = self.tasks
        self.slots = max((len(task.candidates) for task in tasks.values()), default=0)
        check_gates(config, tasks)
        self.model = Diffusion(config.diffusion, guided=needs_guidance(config, tasks))
        self.layers = install(self.model.unet)
        smallest = smallest_attention(self.model.unet)
        if smallest > config.self_max_tokens:
            raise ValueError(
                f"edit.self_max_tokens is {config.self_max_tokens}, but the U-Net's smallest "
                f"self-attention has {smallest} tokens: raise it, or no self-attention is controlled"
            )

    def edit(self, rows: list[dict]) -> dict[str, Decision]:
        """Draw the candidates of at most ``batch`` rows, whose pictures and masks are arrays."""
        missing = self.config.batch - len(rows)
        pictures = self._sample(rows + rows[-1:] * missing)
        with ThreadPoolExecutor(self.config.resources.threads) as threads:  # OpenCV encodes without the GIL
            decisions = threads.map(self._decide, rows, pictures)
            return {row["id"]: decision for row, decision in zip(rows, decisions, strict=True)}

    def _sample(self, rows: list[dict]) -> np.ndarray:
        """Pictures uint8 [rows, 1 + slots, H, W, 3]: of each row the source, then its candidates."""
        model, settings = self.model, self.config.diffusion
        prompts = [anchor_and_edit_prompts(self.tasks[row["task"]], row) for row in rows]
        edits, guidance = [], [settings.guidance_scale] * len(rows)
        length = model.prompts.context_length
        for index, (row, pair) in enumerate(zip(rows, prompts, strict=True)):
            source, target = (tokenize(model.prompts.tokenizer, prompt) for prompt in pair)
            task = self.tasks[row["task"]]
            strengths = self._strengths(row)
            for slot in range(self.slots):
                # A task's last candidate is repeated up to the batch's fixed number of slots.
                chosen = min(slot, len(task.candidates) - 1)
                candidate, strength = task.candidates[chosen], strengths[chosen]
                edits.append(
                    edit_row(
                        candidate,
                        strength,
                        source,
                        target,
                        index=index,
                        steps=settings.steps,
                        length=length,
                        mask=torch.from_numpy(candidate_mask(task, candidate, row)),
                        blend=local_blend(task, candidate, row, source, target, length),
                    )
                )
                guidance.append(strength.guidance_scale)
        control = PromptToPrompt(
            edits,
            len(rows),
            settings.steps,
            self.config.self_max_tokens,
            model.device,
            model.dtype,
            guided=model.guided,
            mask_attention=self.config.mask_attention,
            fusion=self.config.fusion,
            blend_tokens=self.config.blend_tokens,
        )
        seeds = [row["seed"] for row in rows]
        noise = model.initial_latents(seeds)
        sources, targets = (model.prompts.encode([pair[side] for pair in prompts]) for side in (0, 1))
        for layer in self.layers:
            layer.control = control
        latents = model.sample(
            torch.cat([noise, noise.repeat_interleave(self.slots, 0)]),
            join([sources, targets.repeat(self.slots)]),
            torch.tensor(guidance, device=model.device),
            seeds + [seed for seed in seeds for _ in range(self.slots)],
            control,
        )
        images = model.decode(latents)
        candidates = images[len(rows) :].reshape(len(rows), self.slots, *images.shape[1:])
        return np.concatenate([images[: len(rows), None], candidates], 1)

    def _strengths(self, row: dict) -> list[Strength]:
        settings = self.config.diffusion
        return [
            draw_strength(candidate, row["seed"], index, settings.steps, settings.guidance_scale)
            for index, candidate in enumerate(self.tasks[row["task"]].candidates)
        ]

    def _decide(self, row: dict, drawn: np.ndarray) -> Decision:
        task, anchor = self.tasks[row["task"]], drawn[0]
        _, outside = regions(task.region, row["precise_mask"], row["boxes"])
        candidates = []
        drawings = zip(task.candidates, self._strengths(row), drawn[1:], strict=False)
        for candidate, strength, image in drawings:
            raw = mean_change(as_float(anchor), as_float(image), outside)
            if task.composite:
                image = paste_outside(anchor, image, candidate_mask(task, candidate, row))
            candidates.append(
                {
                    "image": encode_png(image),
                    "mask": candidate.mask,
                    "cross_until": strength.cross_until,
                    "self_until": strength.self_until,
                    "guidance_scale": strength.guidance_scale,
                    "change_outside_raw": raw,
                }
            )
        drift = float(np.abs(as_float(anchor) - as_float(row["source_image"])).mean())
        return kept(anchor=encode_png(anchor), source_drift=drift, candidates=candidates)


def candidate_mask(task: Task, candidate: Candidate, row: dict) -> np.ndarray:
    """M of a candidate, float32 [H,W] in [0,1]."""
    return edit_mask(
        task.region,
        candidate.mask,
        row["precise_mask"],
        row["smooth_mask"],
        row["soft_mask"],
        row["boxes"],
    ).astype(np.float32)


def check_gates(config: EditConfig, tasks: Tasks) -> None:
    """Refuse gates that are open by the task file but touch no step.

    Raises:
        ValueError: names the task, the key and the number of steps.
    """
    steps = config.diffusion.steps
    for task in tasks.values():
        for index, candidate in enumerate(task.candidates):
            where = f"task {task.name}: candidates[{index}]"
            try:
                cross, self_ = windows(candidate, steps)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            gates = {"cross_until": (cross, cross_gate(steps, 1, cross))}
            gates["self_until"] = (self_, self_gate(steps, self_))
            for key, ((_, end), gate) in gates.items():
                if end > 0 and not gate.any():
                    raise ValueError(
                        f"{where}.{key} = {end:g} touches none of diffusion.steps = {steps} steps: "
                        "raise it, or set it to 0"
                    )


def needs_guidance(config: EditConfig, tasks: Tasks) -> bool:
    """Whether any row of a batch is drawn with classifier-free guidance."""
    scales = [config.diffusion.guidance_scale]
    for task in tasks.values():
        for candidate in task.candidates:
            scale = candidate.guidance_scale
            if scale is not None:
                scales.append(max(scale) if isinstance(scale, tuple) else scale)
    return max(scales) > 1


def smallest_attention(unet) -> int:
    """Tokens of the U-Net's smallest self-attention layer: that of its middle block."""
    side = unet.config.sample_size // 2 ** (len(unet.config.block_out_channels) - 1)
    return side * side
