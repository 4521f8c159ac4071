"""Random-weight models of the classes that the quickstart downloads, by hub name."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    CLIPTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    PreTrainedTokenizerFast,
)

from tests.stages.detector_weights import config_of
from tests.stages.segmenter_weights import sam_in_transformers
from tests.stages.tiny_estimators import save_tiny_depth, save_tiny_pose
from tests.stages.tiny_models import DETECTOR, SEGMENTER, save_segmenter
from tests.stages.tiny_pipelines import save_sdxl

LATENTS = 16
"""Latents along a side: pictures of 32 px."""


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer: open_clip ships its merges."""
    published = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in published.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(published.bpe_ranks), model_max_length=77)


def _letters() -> PreTrainedTokenizerFast:
    """A tokenizer of BERT's kind that spells every word, with BERT's numbers of special tokens."""
    vocabulary = [f"[unused{number}]" for number in range(1100)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789'-,"
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    for number, piece in {**special, **dict(enumerate(pieces, 200))}.items():
        vocabulary[number] = piece
    words = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokens = {f"{kind}_token": token for kind, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def _save_detector(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = _letters()
    text = BertConfig(
        vocab_size=1100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
    )
    GroundingDinoForObjectDetection(config_of(DETECTOR, text)).save_pretrained(folder)
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)


def _save_segmenter(folder: Path) -> None:
    model, processor = sam_in_transformers(save_segmenter(folder.parent / "published"), SEGMENTER)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _save_open_clip(folder: Path) -> None:
    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    sizes = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir(parents=True)
    preprocessing = {"size": [64, 64], "mean": [0.5] * 3, "std": [0.25] * 3}
    config = {"model_cfg": sizes, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in CLIP(**sizes).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


def _save_pipeline(folder: Path) -> None:
    save_sdxl(folder, clip_tokenizer(), "fp16", sample_size=LATENTS)


def _save_tokenizer(folder: Path) -> None:
    clip_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "clip"}')


def _save_language_model(folder: Path) -> None:
    """The server's stand-in needs no weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')


STAND_INS: Mapping[str, Callable[[Path], object]] = {
    "stabilityai/stable-diffusion-xl-base-1.0": _save_pipeline,
    "IDEA-Research/grounding-dino-base": _save_detector,
    "facebook/sam-vit-huge": _save_segmenter,
    "timm/vit_large_patch14_clip_224.openai": _save_open_clip,
    "openai/clip-vit-large-patch14": _save_tokenizer,
    "depth-anything/Depth-Anything-V2-Small-hf": save_tiny_depth,
    "usyd-community/vitpose-base-simple": save_tiny_pose,
    "Qwen/Qwen2.5-7B-Instruct": _save_language_model,
}


def save_all(folder: Path) -> None:
    """Write every stand-in below ``folder``."""
    for name, save in STAND_INS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / name)
