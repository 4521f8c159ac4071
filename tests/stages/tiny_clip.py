"""A CLIP of the toybox's shape with fresh weights, for tests."""

from pathlib import Path

import torch

from toybox.recipes.tokenizer import build_tokenizer
from toybox.recipes.train_clip import build, save


def save_tiny_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    save(build(len(build_tokenizer())).eval(), folder)
    return folder
