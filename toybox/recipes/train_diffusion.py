"""Train the toybox's text-to-image model: a UNet2DConditionModel and its CLIPTextModel.

v-prediction with zero terminal SNR, sampled with trailing DDIM steps; min-SNR weights with a floor (Hang et
al. 2023). The renderer knows where every object is. A small extra loss pulls the cross-attention of an
object's words onto the object's shape. Colours then find their objects much sooner, and Prompt-to-Prompt gets
useful maps.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from safetensors.torch import load_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from toybox.recipes.scenes import LATENT_SIDE, Scenes, encoded_scenes
from toybox.recipes.tokenizer import build_tokenizer
from toybox.recipes.train_autoencoder import load_autoencoder
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, autocast, first_step, half

FOLDER = WEIGHTS / "diffusion"
CHANNELS = (64, 96, 128)
TEXT_WIDTH = 128
SCENES = 20_000
HELD_BACK = 256
BATCH = 24
CAPTION_DROPOUT = 0.1
SNR_CAP, SNR_FLOOR = 5.0, 0.25
ATTENTION_WEIGHT = 0.02
SCHEDULE = Schedule(steps=5_000, learning_rate=1.2e-3, plateau=0.4, average=0.998)


def build_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def text_config(tokenizer: CLIPTokenizer, width: int, **options: Any) -> CLIPTextConfig:
    """A CLIP text encoder of two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(text_config(tokenizer, TEXT_WIDTH, attn_implementation="eager"))


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids int64 [n, model_max_length]. Word k of a caption is token k + 1."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids.to(DEVICE)


class RecordingAttention(AttnProcessor):
    """diffusers' explicit attention, which keeps the probabilities of the last call."""

    probabilities: torch.Tensor
    """[batch * heads, queries, tokens]"""

    def __call__(self, attn: Attention, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        score = attn.get_attention_scores

        def recording(*inputs):
            self.probabilities = score(*inputs)
            return self.probabilities

        attn.get_attention_scores = recording  # type: ignore[method-assign]
        try:
            return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        finally:
            del attn.get_attention_scores


@dataclass
class Denoiser:
    """The loss of the U-Net and its text encoder on encoded scenes."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    scenes: Scenes
    tokens: torch.Tensor
    empty: torch.Tensor

    def __post_init__(self) -> None:
        self.alphas = build_scheduler().alphas_cumprod.to(DEVICE)
        self.recorders = []
        processors = {}
        for name in self.unet.attn_processors:
            processors[name] = AttnProcessor()
            if name.startswith("up_blocks.2") and "attn2" in name:
                processors[name] = RecordingAttention()
                self.recorders.append(processors[name])
        self.unet.set_attn_processor(processors)

    def loss(self, rows: torch.Tensor, forms: torch.Tensor, t: torch.Tensor, drop: torch.Tensor):
        """Weighted v-prediction loss and attention loss of scenes ``rows`` at timesteps ``t``."""
        error, per_row = self.error(rows, forms, t, drop)
        snr = self.alphas[t] / (1 - self.alphas[t]).clamp(min=1e-8)
        weight = snr.clamp(max=SNR_CAP) / (snr + 1) * 1.25 + SNR_FLOOR
        attention = (per_row * (~drop)).mean()
        diffusion = (error * weight).mean()
        return {"loss": diffusion + ATTENTION_WEIGHT * attention, "v": error.mean(), "attention": attention}

    def error(self, rows: torch.Tensor, forms: torch.Tensor, t: torch.Tensor, drop: torch.Tensor):
        """Per scene: the mean squared error of v, and the attention loss."""
        latents = self.scenes.latents[rows].float()
        noise = torch.randn(latents.shape).to(DEVICE)
        a = self.alphas[t][:, None, None, None]
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * latents
        tokens = torch.where(drop[:, None], self.empty, self.tokens[rows, forms])
        with autocast():
            states = self.text_encoder(tokens).last_hidden_state
            predicted = self.unet(noisy, t, states).sample
        return (predicted.float() - target).pow(2).mean((1, 2, 3)), self._attention_loss(rows, forms)

    def _attention_loss(self, rows: torch.Tensor, forms: torch.Tensor) -> torch.Tensor:
        """Negative log of the share of an object's words' attention that falls onto the object."""
        masks = self.scenes.masks[rows].flatten(2).float() / 255
        words = self.scenes.words[rows, forms].long()
        present = (words >= 0).float()
        index = (words.clamp(min=0) + 1).flatten(1)
        total = torch.zeros(len(rows), device=DEVICE)
        for recorder in self.recorders:
            maps = recorder.probabilities.float().unflatten(0, (len(rows), -1)).mean(1)
            picked = maps.gather(2, index[:, None].expand(-1, maps.shape[1], -1))
            picked = picked.unflatten(2, words.shape[1:]).permute(0, 2, 3, 1)
            inside = (picked * masks[:, :, None]).sum(-1) / picked.sum(-1).clamp(min=1e-6)
            loss = -(inside.clamp(min=1e-4).log()) * present
            total = total + loss.sum((1, 2)) / present.sum((1, 2)).clamp(min=1)
        return total / len(self.recorders)


def main() -> None:
    first = first_step()
    vae = load_autoencoder()
    scenes = encoded_scenes(vae, SCENES)
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    unet, text_encoder = build_unet().to(DEVICE), build_text_encoder(tokenizer).to(DEVICE)
    forms = len(scenes.captions[0])
    tokens = tokenize(tokenizer, [text for texts in scenes.captions for text in texts])
    tokens = tokens.unflatten(0, (-1, forms))
    denoiser = Denoiser(unet, text_encoder, scenes, tokens, tokenize(tokenizer, [""])[0])
    trainable = torch.nn.ModuleList([unet, text_encoder])
    if first:
        load_model(unet, FOLDER / "unet" / "diffusion_pytorch_model.safetensors")
        load_model(text_encoder, FOLDER / "text_encoder" / "model.safetensors")

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        rows = torch.from_numpy(rng.integers(0, SCENES - HELD_BACK, BATCH)).to(DEVICE)
        form = torch.from_numpy(rng.integers(0, forms, BATCH)).to(DEVICE)
        strata = (np.arange(BATCH) + rng.random(BATCH)) / BATCH
        t = torch.from_numpy((strata * 1000).astype(np.int64)).to(DEVICE)
        drop = torch.from_numpy(rng.random(BATCH) < CAPTION_DROPOUT).to(DEVICE)
        return denoiser.loss(rows, form, t, drop)

    def evaluate() -> dict[str, float]:
        torch.manual_seed(0)
        rows = torch.arange(SCENES - HELD_BACK, SCENES, device=DEVICE)
        t = torch.arange(HELD_BACK, device=DEVICE) * 1000 // HELD_BACK
        nothing = torch.zeros(64, dtype=torch.bool, device=DEVICE)
        batches = zip(rows.split(64), t.split(64), strict=True)
        parts = [denoiser.error(batch, batch % forms, at, nothing)[0] for batch, at in batches]
        save(unet, text_encoder, tokenizer, vae)
        return {"validation v": torch.cat(parts).mean().item()}

    training = Training("diffusion", trainable, SCHEDULE, evaluate, 500, first)
    training.run(loss_of_step)


def save(unet, text_encoder, tokenizer, vae) -> None:
    """Write a pipeline folder in diffusers' layout, in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=half(vae),
        text_encoder=half(text_encoder),
        tokenizer=tokenizer,
        unet=half(unet),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(FOLDER, safe_serialization=True)


if __name__ == "__main__":
    main()
