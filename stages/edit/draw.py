"""Sampling a batch of edits: every row's source and candidates are rows of one U-Net batch."""

import numpy as np
import torch

from stages.base import Decision, kept
from stages.diffusion.model import Diffusion
from stages.diffusion.sampler import sample
from stages.edit import EditConfig
from stages.edit.alignment import token_map, tokenize
from stages.edit.attention import install
from stages.edit.composite import paste_outside
from stages.edit.control import EditRow, PromptToPrompt
from stages.images import encode_png
from stages.mask.soft_mask import edit_mask, regions
from stages.pair import anchor_and_edit_captions
from stages.score.fidelity import as_float, mean_change
from stages.tasks import Candidate, Task, Tasks


class Drawing:
    """The diffusion model with Prompt-to-Prompt's attention installed."""

    def __init__(self, config: EditConfig, tasks: Tasks) -> None:
        self.config, self.tasks = config, tasks
        self.slots = max((len(task.candidates) for task in tasks.values()), default=0)
        check_gates(config, tasks)
        self.model = Diffusion(config.diffusion)
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
        return {row["id"]: self._decide(row, drawn) for row, drawn in zip(rows, pictures, strict=False)}

    def _sample(self, rows: list[dict]) -> np.ndarray:
        """Pictures uint8 [rows, 1 + slots, H, W, 3]: of each row the source, then its candidates."""
        model, settings = self.model, self.config.diffusion
        captions = [
            anchor_and_edit_captions(self.tasks[row["task"]], row["caption"], row["output_caption"])
            for row in rows
        ]
        edits, guidance = [], [settings.guidance_scale] * len(rows)
        for index, (row, pair) in enumerate(zip(rows, captions, strict=True)):
            source, target = (tokenize(model.tokenizer, caption) for caption in pair)
            tokens = token_map(source, target, model.context_length)
            task = self.tasks[row["task"]]
            for candidate in self._filled(task):
                edits.append(
                    EditRow(
                        index,
                        tokens,
                        candidate.cross_until,
                        candidate.self_until,
                        torch.from_numpy(candidate_mask(task, candidate, row)),
                    )
                )
                guidance.append(candidate.guidance_scale or settings.guidance_scale)
        control = PromptToPrompt(
            edits, len(rows), settings.steps, self.config.self_max_tokens, model.device, model.dtype
        )
        noise = model.initial_latents([row["seed"] for row in rows])
        sources, targets = (model.encode([pair[side] for pair in captions]) for side in (0, 1))
        for layer in self.layers:
            layer.control = control
        latents = sample(
            model.unet,
            model.scheduler,
            torch.cat([noise, noise.repeat_interleave(self.slots, 0)]),
            torch.cat([sources, targets.repeat_interleave(self.slots, 0)]),
            model.uncond,
            torch.tensor(guidance, device=model.device),
            settings.steps,
            control,
        )
        images = model.decode(latents)
        candidates = images[len(rows) :].reshape(len(rows), self.slots, *images.shape[1:])
        return np.concatenate([images[: len(rows), None], candidates], 1)

    def _filled(self, task: Task) -> list[Candidate]:
        """The task's candidates, the last one repeated up to the batch's fixed number of slots."""
        missing = self.slots - len(task.candidates)
        return [*task.candidates, *task.candidates[-1:] * missing]

    def _decide(self, row: dict, drawn: np.ndarray) -> Decision:
        task, anchor = self.tasks[row["task"]], drawn[0]
        _, outside = regions(task.region, row["precise_mask"], row["boxes"])
        candidates = []
        for candidate, image in zip(task.candidates, drawn[1:], strict=False):
            raw = mean_change(as_float(anchor), as_float(image), outside)
            if task.composite:
                image = paste_outside(anchor, image, candidate_mask(task, candidate, row))
            candidates.append(
                {
                    "image": encode_png(image),
                    "mask": candidate.mask,
                    "cross_until": candidate.cross_until,
                    "self_until": candidate.self_until,
                    "guidance_scale": candidate.guidance_scale or self.config.diffusion.guidance_scale,
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
            ends = {
                "cross_until": (candidate.cross_until, int(candidate.cross_until * (steps + 1))),
                "self_until": (candidate.self_until, int(candidate.self_until * steps)),
            }
            for key, (fraction, end) in ends.items():
                if fraction > 0 and end == 0:
                    raise ValueError(
                        f"task {task.name}: candidates[{index}].{key} = {fraction} touches none of "
                        f"diffusion.steps = {steps} steps: raise it, or set it to 0"
                    )


def smallest_attention(unet) -> int:
    """Tokens of the U-Net's smallest self-attention layer: that of its middle block."""
    side = unet.config.sample_size // 2 ** (len(unet.config.block_out_channels) - 1)
    return side * side
