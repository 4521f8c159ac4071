"""Train the toybox's CLIP: open_clip's CustomTextCLIP, with a ViT of 4 layers and a text tower of 2.

The model will judge edits, so every batch holds hard negatives: scenes with the same layout that differ in
exactly one attribute, with captions that differ in this attribute only. Half of the pictures are passed
through the autoencoder, because all generated pictures come from it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from open_clip.model import CustomTextCLIP
from safetensors.torch import load_model, save_file
from torch.nn import functional as F
from transformers import CLIPTokenizer

from toybox.recipes.contrasts import ATTRIBUTES, group_pictures, training_group, vary
from toybox.recipes.tokenizer import CONTEXT_LENGTH, build_tokenizer
from toybox.recipes.train_autoencoder import load_autoencoder, round_trip, to_tensor
from toybox.recipes.training import DEVICE, WEIGHTS, Schedule, Training, autocast, first_step
from toybox.world.reading import Content, content_of
from toybox.world.render import render
from toybox.world.scene import (
    SIZE,
    Scene,
    sample_caption,
    sample_held_out_scene,
)

FOLDER = WEIGHTS / "clip"
GROUPS = 2000
GROUPS_A_BATCH = 24
SHIFT = SIZE // 20
"""Largest shift of a training picture in pixels."""
UNSEEN = 64
SCHEDULE = Schedule(steps=1600, learning_rate=1e-3, warmup=60, weight_decay=0.05, betas=(0.9, 0.98))


def model_config(vocabulary: int) -> dict:
    """The content of ``open_clip_config.json``."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "custom_text": True,
            "vision_cfg": {
                "image_size": SIZE,
                "layers": 4,
                "width": 128,
                "head_width": 32,
                "patch_size": SIZE // 8,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "beside this file",
                "width": 128,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }


def build(vocabulary: int) -> CustomTextCLIP:
    """The network with untrained weights."""
    config = dict(model_config(vocabulary)["model_cfg"])
    del config["custom_text"]
    return CustomTextCLIP(**config)


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pictures [n,h,w,3], all shifted by the same few pixels; edges are repeated."""
    y, x = rng.integers(0, 2 * SHIFT + 1, 2)
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "edge")
    return padded[:, y : y + SIZE, x : x + SIZE]


def contrastive_loss(
    model: CustomTextCLIP, images: torch.Tensor, tokens: torch.Tensor, same: torch.Tensor
) -> torch.Tensor:
    """CLIP's loss. ``same`` bool [n,n] marks the captions that fit each picture."""
    with autocast():
        image_features = model.encode_image(images, normalize=True)
        text_features = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * image_features.float() @ text_features.float().T
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class Unseen:
    """Held-out scenes with one variant per attribute, as round-tripped pictures with captions."""

    def __init__(self, autoencoder: AutoencoderKL, tokenize) -> None:
        rng = np.random.default_rng(6)
        scenes: dict[Content, Scene] = {}
        while len(scenes) < UNSEEN:
            scene = sample_held_out_scene(rng)
            scenes.setdefault(content_of(scene), scene)
        self.originals = self._encoded(autoencoder, tokenize, list(scenes.values()), rng)
        self.variants = {
            attribute: self._encoded(
                autoencoder,
                tokenize,
                [v for scene in scenes.values() if (v := vary(scene, attribute, rng)) is not None],
                rng,
            )
            for attribute in ATTRIBUTES
        }

    @staticmethod
    def _encoded(autoencoder, tokenize, scenes: Sequence[Scene], rng) -> tuple[torch.Tensor, torch.Tensor]:
        images = np.stack([render(scene).image for scene in scenes])
        captions = [sample_caption(scene, rng) for scene in scenes]
        return to_tensor(round_trip(autoencoder, images)), tokenize(captions)

    def figures(self, model: CustomTextCLIP) -> dict[str, float]:
        """Measure the model on these scenes.

        ``top1``: share of right captions out of 64. For each attribute: share of right captions out of two
        that differ in it. ``direction``, ``direction_off``: mean directional similarity of a true edit, and
        with another edit's captions.
        """
        images, texts = self._features(model, *self.originals)
        similarity = images @ texts.T
        right = similarity.argmax(1) == torch.arange(len(images), device=similarity.device)
        figures = {"top1": right.float().mean().item(), "match": similarity.diagonal().mean().item()}
        true, false = [], []
        for attribute, encoded in self.variants.items():
            other_images, other_texts = self._features(model, *encoded)
            wrong = (images * other_texts).sum(1)
            figures[attribute] = (similarity.diagonal() > wrong).float().mean().item()
            image_change, text_change = other_images - images, other_texts - texts
            true.append(F.cosine_similarity(image_change, text_change))
            false.append(F.cosine_similarity(image_change, text_change.roll(1, 0)))
        figures["direction"] = torch.cat(true).mean().item()
        figures["direction_off"] = torch.cat(false).mean().item()
        return figures

    @staticmethod
    def _features(model: CustomTextCLIP, images: torch.Tensor, tokens: torch.Tensor):
        return model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)


def tokenize_with(tokenizer: CLIPTokenizer) -> Callable[[Sequence[str]], torch.Tensor]:
    """A function from captions to token ids int64 [n,CONTEXT_LENGTH]."""

    def tokenize(captions: Sequence[str]) -> torch.Tensor:
        padded = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
        return padded.input_ids.to(DEVICE)

    return tokenize


def save(model: CustomTextCLIP, folder: Path) -> None:
    """Write config, half-precision weights and tokenizer in open_clip's layout."""
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    config = json.dumps(model_config(len(tokenizer)), indent=2)
    (folder / "open_clip_config.json").write_text(config + "\n", encoding="utf-8")
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def main() -> None:
    first = first_step()
    autoencoder = load_autoencoder()
    tokenizer = build_tokenizer()
    tokenize = tokenize_with(tokenizer)
    groups = [training_group(index) for index in range(GROUPS)]
    pictures = group_pictures(groups, autoencoder)
    unseen = Unseen(autoencoder, tokenize)
    torch.manual_seed(0)
    model = build(len(tokenizer)).to(DEVICE)
    if first:
        load_model(model, FOLDER / "open_clip_model.safetensors")

    def loss_of_step(step: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        chosen = np.sort(rng.choice(GROUPS, GROUPS_A_BATCH, replace=False))
        scenes = [scene for index in chosen for scene in groups[index]]
        images = np.concatenate([shifted(pictures[index], rng) for index in chosen])
        contents = [content_of(scene) for scene in scenes]
        same = torch.tensor([[a == b for b in contents] for a in contents], device=DEVICE)
        tokens = tokenize([sample_caption(scene, rng) for scene in scenes])
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        return {"loss": contrastive_loss(model, to_tensor(images), tokens, same)}

    training = Training("clip", model, SCHEDULE, lambda: unseen.figures(model), 250, first)
    training.run(loss_of_step)
    with training.averaged_weights():
        save(model, FOLDER)


if __name__ == "__main__":
    main()
