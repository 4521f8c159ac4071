"""Pipelines whose text encoders are language models, small and random, saved as diffusers saves them."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
)

from tests.stages.tiny_pipelines import tiny_vae

TEXT_WIDTH = 32
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_bpe() -> PreTrainedTokenizerFast:
    """As Qwen's: byte-level, whose tokens begin with their space; the template's words are whole tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[a-zA-Z]+|[^\sa-zA-Z]|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    words = TEMPLATE.replace("{}", "a red blue car ball on")
    for special in _SPECIAL:
        words = words.replace(special, "")
    tokenizer.train_from_iterator([words], trainer)
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in _SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_max_length=4096,
        chat_template=_CHAT,
    )


def qwen_transformer() -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 6, 6),
    )


def qwen_vl(words: int, **tokens: int) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL; ``tokens`` are the numbers of those that stand for pictures."""
    text = {
        "vocab_size": words,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    vision |= {"out_hidden_size": TEXT_WIDTH, "fullatt_block_indexes": [0]}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config={**text, **ends}, vision_config=vision, **tokens)
    )


def qwen_vae() -> AutoencoderKLQwenImage:
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[-0.7, 0.3, 0.1, -0.2],
        latents_std=[2.8, 1.4, 0.6, 1.1],
    )


def save_qwen(folder: Path, **scheduler) -> Path:
    """Qwen-Image; its noise levels are shifted by size, and end at .02 before 0, as the published ones."""
    torch.manual_seed(0)
    published = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192}
    tokenizer = byte_bpe()
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**{**published, "shift_terminal": 0.02, **scheduler}),
        vae=qwen_vae(),
        text_encoder=qwen_vl(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=qwen_transformer(),
    ).save_pretrained(folder)
    return folder


def zimage_transformer() -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[512, 64, 64],
    )


def save_zimage(folder: Path, **scheduler) -> Path:
    """Z-Image; by default with the noise levels of the published models, shifted by one factor."""
    torch.manual_seed(0)
    tokenizer = byte_bpe()
    encoder = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        bos_token_id=None,
        eos_token_id=None,
    )
    transformer = zimage_transformer()
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=tiny_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(encoder),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder
