"""groundingdino-py's weights under the names that transformers gives them, to compare the two."""

import re
from collections.abc import Iterator, Mapping

import torch
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    PreTrainedTokenizerBase,
    SwinConfig,
)

from stages.models.grounding.architecture import Architecture

SWIN = "model.backbone.conv_encoder.model"
DEFORMABLE = {
    "norm1": "self_attn_layer_norm",
    "linear1": "fc1",
    "linear2": "fc2",
    "norm2": "final_layer_norm",
}
TEXT = {"norm1": "layer_norm_before", "norm2": "layer_norm_after", "linear1": "fc1", "linear2": "fc2"}
FUSION = {
    "gamma_v": "vision_param",
    "gamma_l": "text_param",
    "layer_norm_v": "layer_norm_vision",
    "layer_norm_l": "layer_norm_text",
    "v_proj": "vision_proj",
    "l_proj": "text_proj",
    "values_v_proj": "values_vision_proj",
    "values_l_proj": "values_text_proj",
    "out_v_proj": "out_vision_proj",
    "out_l_proj": "out_text_proj",
}
DECODER = {
    "cross_attn": "encoder_attn",
    "norm1": "encoder_attn_layer_norm",
    "ca_text": "encoder_attn_text",
    "catext_norm": "encoder_attn_text_layer_norm",
    "norm2": "self_attn_layer_norm",
    "linear1": "fc1",
    "linear2": "fc2",
    "norm3": "final_layer_norm",
}
BLOCK = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn": "attention", "proj": "o_proj"}
FAMILIES: list[tuple[str, str, Mapping[str, str]]] = [
    (r"backbone\.0\.patch_embed\.proj", rf"{SWIN}.swin.embeddings.patch_embeddings.projection", {}),
    (r"backbone\.0\.patch_embed\.norm", rf"{SWIN}.swin.embeddings.norm", {}),
    (r"backbone\.0\.(layers\.\d+\.blocks\.\d+)", rf"{SWIN}.swin.encoder.\1", BLOCK),
    (r"backbone\.0\.(layers\.\d+\.downsample)", rf"{SWIN}.swin.encoder.\1", {}),
    (r"transformer\.encoder\.layers\.(\d+)", r"model.encoder.layers.\1.deformable_layer", DEFORMABLE),
    (r"transformer\.encoder\.text_layers\.(\d+)", r"model.encoder.layers.\1.text_enhancer_layer", TEXT),
    (r"transformer\.encoder\.fusion_layers\.(\d+)", r"model.encoder.layers.\1.fusion_layer", FUSION),
    (r"transformer\.decoder\.layers\.(\d+)", r"model.decoder.layers.\1", DECODER),
    (r"transformer\.decoder\.norm", "model.decoder.layer_norm", {}),
    (r"transformer\.decoder\.ref_point_head", "model.decoder.reference_points_head", {}),
    (r"transformer\.decoder\.bbox_embed", "model.decoder.bbox_embed", {}),
    (r"transformer\.enc_out_bbox_embed", "model.encoder_output_bbox_embed", {}),
    (r"transformer\.(enc_output|enc_output_norm|level_embed)", r"model.\1", {}),
    (r"transformer\.tgt_embed", "model.query_position_embeddings", {}),
    (r"bert", "model.text_backbone", {}),
    (r"feat_map", "model.text_projection", {}),
    (r"input_proj", "model.input_proj_vision", {}),
    (r"bbox_embed", "bbox_embed", {}),
]


def renamed(name: str) -> str:
    norm = re.fullmatch(r"backbone\.0\.norm(\d)\.(\w+)", name)
    if norm:
        return f"{SWIN}.hidden_states_norms.stage{int(norm[1]) + 1}.{norm[2]}"
    for pattern, replacement, words in FAMILIES:
        match = re.match(rf"{pattern}(?=\.|$)", name)
        if match:
            rest = [words.get(word, word) for word in name[match.end() :].split(".")]
            return match.expand(replacement) + ".".join(rest)
    raise KeyError(name)


def converted(state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """transformers' names and tensors; joint projections of queries, keys and values are split."""
    for name, tensor in state.items():
        if name.endswith("relative_position_index") or name.startswith("bert.pooler"):
            continue
        if ".qkv." in name:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                yield renamed(name.replace("qkv", f"{part}_proj")), chunk
        elif ".in_proj_" in name:
            for part, chunk in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                yield renamed(name.replace("in_proj_", f"{part}.")), chunk
        elif name.endswith("relative_position_bias_table"):
            table = "relative_position_bias_table"
            yield renamed(name).replace(table, f"relative_position_bias.{table}"), tensor
        else:
            yield renamed(name), tensor


def config_of(architecture: Architecture, text: BertConfig) -> GroundingDinoConfig:
    backbone = architecture.backbone
    return GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=backbone.pretrain_img_size,
            patch_size=backbone.patch_size,
            embed_dim=backbone.embed_dim,
            depths=backbone.depths,
            num_heads=backbone.num_heads,
            window_size=backbone.window_size,
            out_indices=[index + 1 for index in backbone.out_indices],
        ),
        text_config=text,
        d_model=architecture.hidden_dim,
        encoder_layers=architecture.enc_layers,
        decoder_layers=architecture.dec_layers,
        encoder_ffn_dim=architecture.dim_feedforward,
        decoder_ffn_dim=architecture.dim_feedforward,
        encoder_attention_heads=architecture.nheads,
        decoder_attention_heads=architecture.nheads,
        num_queries=architecture.num_queries,
        num_feature_levels=architecture.num_feature_levels,
    )


def in_transformers(
    model: torch.nn.Module, architecture: Architecture, tokenizer: PreTrainedTokenizerBase
) -> tuple[GroundingDinoForObjectDetection, GroundingDinoProcessor]:
    """The same detector in transformers' classes, with its processor."""
    twin = GroundingDinoForObjectDetection(config_of(architecture, model.bert.config)).eval()
    missing, unexpected = twin.load_state_dict(dict(converted(model.state_dict())), strict=False)
    assert not unexpected, unexpected
    known = ("relative_position_index", ".swin.layernorm.")
    assert not [name for name in missing if not any(part in name for part in known)], missing
    image = architecture.image
    pictures = GroundingDinoImageProcessor(
        size={"shortest_edge": image.shortest_side, "longest_edge": image.longest_side},
        image_mean=list(image.mean),
        image_std=list(image.std),
    )
    return twin, GroundingDinoProcessor(pictures, tokenizer)
