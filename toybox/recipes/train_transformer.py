"""Train the toybox's second text-to-image model (:mod:`toybox.recipes.transformer`).

Flow matching on the same encoded scenes as the U-Net. Each latent pixel is a token: 256 of them. The renderer
knows what stands where. A small extra loss has the states halfway name what the picture shows at their token,
read by linear heads that are not kept. Transformers this small learn shapes several times sooner with such
help for their states (Yu et al. 2025, there with features of another model).
"""

from typing import Any

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, load_model
from torch import nn
from torch.nn.functional import cross_entropy

from stages.tasks import load_tasks
from toybox.recipes.scene_content import content_of
from toybox.recipes.scenes import Scenes, encoded_scenes
from toybox.recipes.tokenizer import CONTEXT_LENGTH, build_tokenizer
from toybox.recipes.train_autoencoder import load_autoencoder
from toybox.recipes.train_diffusion import FOLDER as UNET
from toybox.recipes.train_language_model import PROMPTS
from toybox.recipes.train_task_predictor import t5_tokenizer
from toybox.recipes.training import DEVICE, Schedule, Training, autocast, first_step
from toybox.recipes.transformer import (
    CLIP_WIDTHS,
    FOLDER,
    HEAD_WIDTH,
    HEADS,
    Texts,
    build_clip,
    build_t5,
    build_transformer,
    parts_of,
    save,
)
from toybox.world.answers import TASKS
from toybox.world.scene import COLORS, KINDS, PLACES

SCENES = 20_000
HELD_BACK = 256
BATCH = 32
CAPTION_DROPOUT = 0.1
CONTENT_BLOCK, CONTENT_WEIGHT = 2, 0.1
SCHEDULE = Schedule(steps=4_800, learning_rate=1e-3, warmup=200, plateau=0.3, average=0.998)


class Denoiser(nn.Module):
    """The loss of the transformer and its text encoders on encoded scenes.

    Args:
        tokens: of CLIP and of T5, int64 [n,forms,T] each.
        empty: of the empty caption, int64 [T] each.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        texts: Texts,
        scenes: Scenes,
        tokens: tuple[torch.Tensor, torch.Tensor],
        empty: tuple[torch.Tensor, torch.Tensor],
    ) -> None:
        super().__init__()
        self.transformer, self.texts = transformer, texts
        self.scenes, self.tokens, self.empty = scenes, tokens, empty
        self.content = content_of(scenes)
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(HEADS * HEAD_WIDTH, size)
                for name, size in [
                    ("kinds", len(KINDS) + 1),
                    ("colors", len(COLORS) + 1),
                    ("places", len(PLACES)),
                    ("nights", 2),
                ]
            }
        )
        self._halfway: torch.Tensor
        transformer.transformer_blocks[CONTENT_BLOCK].register_forward_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._halfway = output[1]

    def loss(self, rows: torch.Tensor, forms: torch.Tensor, sigma: torch.Tensor, drop: torch.Tensor):
        """The flow's loss and the content's loss of scenes ``rows`` at noise levels ``sigma`` [n] in 0..1."""
        flow = self.flow_error(rows, forms, sigma, drop).mean()
        content = self._content_loss(rows)
        return {"loss": flow + CONTENT_WEIGHT * content, "flow": flow, "content": content}

    def flow_error(self, rows: torch.Tensor, forms: torch.Tensor, sigma: torch.Tensor, drop: torch.Tensor):
        """The mean squared error of the velocity [n]."""
        latents = self.scenes.latents[rows].float()
        noise = torch.randn(latents.shape).to(DEVICE)
        level = sigma[:, None, None, None]
        tokens = (
            torch.where(drop[:, None], empty, tokens[rows, forms])
            for tokens, empty in zip(self.tokens, self.empty, strict=True)
        )
        with autocast():
            states, pooled = self.texts(*tokens)
            (velocity,) = self.transformer(
                hidden_states=(1 - level) * latents + level * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=states,
                pooled_projections=pooled,
                return_dict=False,
            )
        return (velocity.float() - (noise - latents)).pow(2).mean((1, 2, 3))

    def _content_loss(self, rows: torch.Tensor) -> torch.Tensor:
        states = self._halfway.float()
        content, total = self.content, torch.zeros((), device=DEVICE)
        for name in ("kinds", "colors"):
            target = getattr(content, name)[rows].to(DEVICE, torch.float32)
            total = total + cross_entropy(self.heads[name](states).transpose(1, 2), target.flatten(2))
        mean = states.mean(1)
        for name in ("places", "nights"):
            total = total + cross_entropy(self.heads[name](mean), getattr(content, name)[rows].to(DEVICE))
        return total


def noise_levels(rng: np.random.Generator) -> torch.Tensor:
    """A batch of stratified noise levels, logit-normal as in SD 3 (Esser et al. 2024)."""
    strata = (np.arange(BATCH) + rng.random(BATCH)) / BATCH
    normal = torch.special.ndtri(torch.from_numpy(strata).float().clamp(1e-4, 1 - 1e-4))
    return normal.sigmoid().to(DEVICE)


def padded(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Token ids int64 [n,CONTEXT_LENGTH]."""
    encoded = tokenizer(
        captions, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids.to(DEVICE)


def main() -> None:
    first = first_step()
    vae = load_autoencoder()
    scenes = encoded_scenes(vae, SCENES)
    torch.manual_seed(0)
    tokenizer, words = build_tokenizer(), t5_tokenizer(load_tasks(PROMPTS, names=TASKS))
    words.model_max_length = CONTEXT_LENGTH
    transformer = build_transformer().to(DEVICE)
    texts = Texts([build_clip(tokenizer, width) for width in CLIP_WIDTHS], build_t5(words)).to(DEVICE)
    learned = load_file(UNET / "text_encoder" / "model.safetensors")
    texts.clips[0].load_state_dict({key: value.float() for key, value in learned.items()}, strict=False)
    if first:
        for name, part in parts_of(transformer, texts).items():
            file = "diffusion_pytorch_model" if name == "transformer" else "model"
            load_model(part, FOLDER / name / f"{file}.safetensors")
    forms = len(scenes.captions[0])
    captions = [text for texts in scenes.captions for text in texts]
    tokens = [padded(each, captions).unflatten(0, (-1, forms)) for each in (tokenizer, words)]
    empty = [padded(each, [""])[0] for each in (tokenizer, words)]
    denoiser = Denoiser(transformer, texts, scenes, tuple(tokens), tuple(empty)).to(DEVICE)

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(0, SCENES - HELD_BACK, BATCH)).to(DEVICE)
        form = torch.from_numpy(rng.integers(0, forms, BATCH)).to(DEVICE)
        drop = torch.from_numpy(rng.random(BATCH) < CAPTION_DROPOUT).to(DEVICE)
        return denoiser.loss(rows, form, noise_levels(rng), drop)

    def evaluate() -> dict[str, float]:
        torch.manual_seed(0)
        rows = torch.arange(SCENES - HELD_BACK, SCENES, device=DEVICE)
        sigma = (torch.arange(HELD_BACK, device=DEVICE) + 0.5) / HELD_BACK
        nothing = torch.zeros(64, dtype=torch.bool, device=DEVICE)
        batches = zip(rows.split(64), sigma.split(64), strict=True)
        errors = [denoiser.flow_error(batch, batch % forms, at, nothing) for batch, at in batches]
        save(transformer, texts, tokenizer, words, vae)
        return {"validation flow": torch.cat(errors).mean().item()}

    Training("transformer", denoiser, SCHEDULE, evaluate, 500, first).run(loss_of_step)


if __name__ == "__main__":
    main()
