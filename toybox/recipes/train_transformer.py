"""Train the toybox's second text-to-image model: an SD3Transformer2DModel with its three text encoders.

Flow matching on the same encoded scenes as the U-Net. Each latent pixel is a token: 256 of them. The renderer
knows what stands where. A small extra loss has the states halfway name what the picture shows at their token,
read by linear heads that are not kept. Transformers this small learn shapes several times sooner with such
help for their states (Yu et al. 2025, there with features of another model).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file, load_model
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from stages.tasks import load_tasks
from toybox.recipes.keep_editor import forget_origin
from toybox.recipes.scenes import LATENT_SIDE, Scenes, encoded_scenes
from toybox.recipes.tokenizer import CONTEXT_LENGTH, build_tokenizer
from toybox.recipes.train_autoencoder import load_autoencoder
from toybox.recipes.train_diffusion import FOLDER as UNET
from toybox.recipes.train_language_model import PROMPTS
from toybox.recipes.train_task_predictor import t5_tokenizer
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, autocast, first_step, half
from toybox.world.answers import TASKS
from toybox.world.scene import COLORS, KINDS, PLACES, sample_training_scene

FOLDER = WEIGHTS / "transformer"
HEADS, HEAD_WIDTH, LAYERS = 5, 32, 6
CLIP_WIDTHS = (128, 64)
"""Of the two CLIP text encoders. The first begins with the weights of the U-Net's."""
T5_WIDTH = sum(CLIP_WIDTHS)
"""SD 3 fills CLIP's states up to T5's width; here nothing is filled up."""
SCENES = 20_000
HELD_BACK = 256
BATCH = 32
CAPTION_DROPOUT = 0.1
CONTENT_BLOCK, CONTENT_WEIGHT = 2, 0.1
SCHEDULE = Schedule(steps=4_800, learning_rate=1e-3, warmup=200, plateau=0.3, average=0.998)


def build_transformer() -> SD3Transformer2DModel:
    """5.4 M parameters. Modulation and output begin at 0: a block begins as the identity (Peebles & Xie)."""
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=sum(CLIP_WIDTHS),
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    modulations = [block.norm1.linear for block in transformer.transformer_blocks]
    modulations += [block.norm1_context.linear for block in transformer.transformer_blocks]
    for module in [*modulations, transformer.norm_out.linear, transformer.proj_out]:
        nn.init.zeros_(module.weight)
    return transformer


def build_clip(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
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
    )
    return CLIPTextModelWithProjection(config)


def build_t5(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=T5_WIDTH,
        d_kv=32,
        d_ff=2 * T5_WIDTH,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return T5EncoderModel(config)


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


@dataclass(frozen=True)
class Content:
    """What training scenes show.

    By latent pixel, ``kinds`` float16 [n,K+1,16,16] and ``colors`` [n,C+1,16,16] are shares that sum to 1,
    the last for no object. ``places`` and ``nights`` are int64 [n].
    """

    kinds: torch.Tensor
    colors: torch.Tensor
    places: torch.Tensor
    nights: torch.Tensor


def content_of(scenes: Scenes) -> Content:
    """The content of the scenes that :func:`toybox.recipes.scenes.encoded_scenes` encoded."""
    count = len(scenes.masks)
    shares = scenes.masks.float().div(255).cpu()
    kinds = torch.zeros(count, len(KINDS) + 1, LATENT_SIDE, LATENT_SIDE)
    colors = torch.zeros(count, len(COLORS) + 1, LATENT_SIDE, LATENT_SIDE)
    places, nights = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    for row in range(count):
        scene = sample_training_scene(np.random.default_rng([4, row]))
        places[row], nights[row] = list(PLACES).index(scene.background), scene.time == "night"
        for place, thing in enumerate(scene.things):
            kinds[row, KINDS.index(thing.kind)] += shares[row, place]
            colors[row, list(COLORS).index(thing.color)] += shares[row, place]
    for maps in (kinds, colors):
        maps.div_(maps.sum(1, keepdim=True).clamp(min=1))
        maps[:, -1] = 1 - maps[:, :-1].sum(1)
    return Content(kinds.half(), colors.half(), places, nights)


class Texts(nn.Module):
    """The three text encoders on tokens: states [n,T,d] and pooled vectors [n,p], as in SD 3's pipeline."""

    def __init__(self, clips: list[CLIPTextModelWithProjection], t5: T5EncoderModel) -> None:
        super().__init__()
        self.clips, self.t5 = nn.ModuleList(clips), t5

    def forward(
        self, clip_tokens: torch.Tensor, t5_tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = [clip(clip_tokens, output_hidden_states=True) for clip in self.clips]
        states = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        pooled = torch.cat([output.text_embeds for output in outputs], -1)
        return torch.cat([states, self.t5(t5_tokens)[0].to(states.dtype)], 1), pooled


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


def parts_of(transformer: SD3Transformer2DModel, texts: Texts) -> dict[str, Any]:
    """The trained parts by their names in SD 3's pipeline."""
    encoders = {"text_encoder": texts.clips[0], "text_encoder_2": texts.clips[1], "text_encoder_3": texts.t5}
    return {"transformer": transformer, **encoders}


def save(transformer, texts: Texts, tokenizer, words, vae, folder: Path = FOLDER) -> None:
    """Write a pipeline folder in diffusers' layout, in half precision."""
    vae = half(vae)
    vae.register_to_config(shift_factor=0.0)
    pipeline = StableDiffusion3Pipeline(
        **{name: half(part) for name, part in parts_of(transformer, texts).items()},
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=words,
        scheduler=build_scheduler(),
        vae=vae,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    forget_origin(folder / "vae" / "config.json")


if __name__ == "__main__":
    main()
