"""Models at their published sizes with random weights, in folders as the hub has them. No download.

Their tokenizers are the toybox's, so that no vocabulary is needed.
"""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

from benchmarks.models import FAMILIES
from stages.models.device import default_device
from toybox.recipes.tokenizer import build_tokenizer

DETECTOR_TOKENIZER = Path(__file__).parents[1] / "toybox/weights/detector/text_encoder"
VIT_L: dict[str, int] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
"""The text side of CLIP ViT-L/14."""
BIG_G: dict[str, int] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
"""The text side of OpenCLIP ViT-bigG/14."""
SAM_HUGE: dict[str, Any] = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "global_attn_indexes": [7, 15, 23, 31],
}


def save_all(folder: Path, family: str, dtype: torch.dtype, huge: bool) -> dict[str, str]:
    """Save the chain's models. Returns the folder of each, by manifest key.

    Args:
        folder: where to.
        family: ``sd15`` or ``sdxl``.
        dtype: of the diffusion model's weights.
        huge: SAM ViT-H, otherwise ViT-B.
    """
    torch.manual_seed(0)
    folders = {name: folder / name for name in ("diffusion", "grounding", "segmenter", "clip")}
    # Without torch's random initialisation of gigabytes on a CPU, and in half the memory.
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.inference_mode(), default_device():
            _save_diffusion(folders["diffusion"], family)
    finally:
        torch.set_default_dtype(default)
    _save_detector(folders["grounding"])
    _save_segmenter(folders["segmenter"], huge)
    _save_clip(folders["clip"])
    return {name: str(path) for name, path in folders.items()}


def _save_diffusion(folder: Path, family: str) -> None:
    tokenizer = build_tokenizer()
    side = FAMILIES[family]["sample_size"]
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=4,
            sample_size=8 * side,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**VIT_L)),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(layers_per_block=2, **FAMILIES[family]),
        "scheduler": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    }
    if family == "sdxl":
        second = CLIPTextModelWithProjection(CLIPTextConfig(**BIG_G))
        pipeline = StableDiffusionXLPipeline(**parts, text_encoder_2=second, tokenizer_2=tokenizer)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)


def _save_detector(folder: Path) -> None:
    """GroundingDINO Swin-T of transformers."""
    tokenizer = AutoTokenizer.from_pretrained(DETECTOR_TOKENIZER)
    GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(folder)
    GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer).save_pretrained(folder)


def _save_segmenter(folder: Path, huge: bool) -> None:
    SamModel(SamConfig(vision_config=SAM_HUGE if huge else {})).save_pretrained(folder)
    SamProcessor(SamImageProcessor()).save_pretrained(folder)


def _save_clip(folder: Path) -> None:
    """CLIP ViT-L/14 as open_clip saves it."""
    build_tokenizer().save_pretrained(folder)
    network = open_clip.create_model("ViT-L-14").eval()
    config = {"model_cfg": open_clip.get_model_config("ViT-L-14"), "preprocess_cfg": {}}
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "beside this file"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
