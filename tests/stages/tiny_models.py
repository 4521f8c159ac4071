"""Random-weight models, small enough to be built in a test, in the folders that the loaders read."""

from pathlib import Path

import torch
from safetensors.torch import save_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedTokenizerFast

from stages.models.grounding import architecture as grounding
from stages.models.segmenter import architecture as segmenter

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "the", "red", "blue", "striped", "car"]

DETECTOR = grounding.Architecture(
    backbone=grounding.Backbone(
        pretrain_img_size=64, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, out_indices=(0, 1)
    ),
    image=grounding.ImageInput(shortest_side=64, longest_side=96),
    text_length=12,
    hidden_dim=32,
    enc_layers=1,
    dec_layers=2,
    dim_feedforward=32,
    nheads=2,
    num_queries=6,
    num_feature_levels=3,
)

SEGMENTER = segmenter.Architecture(
    image_size=64,
    patch_size=8,
    encoder=segmenter.Encoder(
        embed_dim=16, depth=1, num_heads=2, mlp_ratio=2, global_attn_indexes=(0,), window_size=0
    ),
    prompt_embed_dim=32,
    mask_in_chans=4,
    decoder_mlp_dim=32,
    decoder_num_heads=2,
    iou_head_depth=2,
    iou_head_hidden_dim=16,
)


def save_text_encoder(folder: Path) -> Path:
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    ).save_pretrained(folder)
    return folder


def save_detector(folder: Path):
    """A detector with random weights, and the model that was written."""
    torch.manual_seed(0)
    model = grounding.build(DETECTOR, save_text_encoder(folder / grounding.TEXT_ENCODER)).eval()
    (folder / "config.json").write_text(DETECTOR.model_dump_json())
    save_model(model, str(folder / "model.safetensors"))
    return model


def save_segmenter(folder: Path):
    """A segmenter with random weights, and the model that was written."""
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    model = segmenter.build(SEGMENTER).eval()
    (folder / "config.json").write_text(SEGMENTER.model_dump_json())
    save_model(model, str(folder / "model.safetensors"))
    return model
