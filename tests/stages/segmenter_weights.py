"""segment-anything's weights under the names that transformers gives them, to compare the two."""

import re
from collections.abc import Iterator, Mapping

import torch
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from stages.models.segmenter.architecture import Architecture

NAMES = [
    (r"^image_encoder", "vision_encoder"),
    (r"\.blocks\.", ".layers."),
    (r"\.patch_embed\.proj\b", ".patch_embed.projection"),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"point_embeddings", "point_embed"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"\.norm(\w*)\.", r".layer_norm\1."),
]


def converted(
    state: Mapping[str, torch.Tensor], last: Mapping[str, int]
) -> Iterator[tuple[str, torch.Tensor]]:
    """transformers' names and tensors.

    Args:
        last: by the name of a small network, the number of its last layer.
    """
    for name, tensor in state.items():
        mlp = re.search(r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.(\d+)", name)
        if mlp:
            end, number = last[mlp[1].split(".")[0]], int(mlp[2])
            place = {0: "proj_in", end: "proj_out"}.get(number, f"layers.{number - 1}")
            name = name.replace(f"layers.{number}", place)
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        if name == "prompt_encoder.shared_embedding.positional_embedding":
            yield "shared_image_embedding.positional_embedding", tensor
        yield name, tensor


def sam_in_transformers(
    model: torch.nn.Module, architecture: Architecture
) -> tuple[SamModel, SamImageProcessor]:
    """The same SAM in transformers' classes, with its image processor."""
    a = architecture
    vision = SamVisionConfig(
        hidden_size=a.encoder.embed_dim,
        output_channels=a.prompt_embed_dim,
        num_pos_feats=a.prompt_embed_dim // 2,
        num_hidden_layers=a.encoder.depth,
        num_attention_heads=a.encoder.num_heads,
        image_size=a.image_size,
        patch_size=a.patch_size,
        window_size=a.encoder.window_size,
        global_attn_indexes=list(a.encoder.global_attn_indexes),
        mlp_dim=int(a.encoder.embed_dim * a.encoder.mlp_ratio),
    )
    prompts = SamPromptEncoderConfig(
        hidden_size=a.prompt_embed_dim,
        image_size=a.image_size,
        patch_size=a.patch_size,
        mask_input_channels=a.mask_in_chans,
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=a.prompt_embed_dim,
        mlp_dim=a.decoder_mlp_dim,
        num_hidden_layers=a.decoder_depth,
        num_attention_heads=a.decoder_num_heads,
        iou_head_depth=a.iou_head_depth,
        iou_head_hidden_dim=a.iou_head_hidden_dim,
    )
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    twin = SamModel(config).eval()
    last = {"iou_prediction_head": a.iou_head_depth - 1, "output_hypernetworks_mlps": 2}
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pixel_")}
    twin.load_state_dict(dict(converted(state, last)))
    side = a.image_size
    pictures = SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    return twin, pictures


def tiny_sam2() -> tuple[Sam2Config, Sam2ImageProcessor]:
    """A SAM 2 of 64 px, without weights."""
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        window_positional_embedding_background_size=[4, 4],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 4, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_attention_heads=2, iou_head_hidden_dim=16
        ),
    )
    return config, Sam2ImageProcessor(size={"height": 64, "width": 64})
