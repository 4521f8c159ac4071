"""GroundingDINO built from its parts, with the sizes in a JSON file.

A weights folder holds ``config.json`` (:class:`Architecture`), ``model.safetensors``, and the folder
``text_encoder`` with BERT's ``config.json`` and tokenizer. Parameter names are those of the published
checkpoints.
"""

import warnings
from pathlib import Path
from types import SimpleNamespace

from pydantic import Field
from transformers import AutoTokenizer, BertConfig, BertModel

from stages.base import Section, Weights
from stages.models.grounding.compat import (
    FixedLengthTokenizer,
    fit_sine_embeddings,
    groundingdino,
    keep_rows_apart,
    text_side,
)
from stages.models.weights import load_processor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
    from groundingdino.models.GroundingDINO.backbone.position_encoding import build_position_encoding
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from groundingdino.models.GroundingDINO.transformer import build_transformer

TEXT_ENCODER = "text_encoder"


class Backbone(Section):
    """The Swin transformer; the defaults are Swin-T (``swin_T_224_1k``)."""

    pretrain_img_size: int = 224
    patch_size: int = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    out_indices: tuple[int, ...] = (1, 2, 3)


class ImageInput(Section):
    """How a picture is resized and normalised (pixel values in [0,1])."""

    shortest_side: int = 800
    longest_side: int = 1333
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Architecture(Section):
    """The sizes of a GroundingDINO; the defaults are the published ``GroundingDINO_SwinT_OGC``."""

    backbone: Backbone = Backbone()
    image: ImageInput = ImageInput()
    text_length: int = Field(64, ge=4, le=256, description="tokens a caption is cut or padded to")
    hidden_dim: int = Field(256, description="a multiple of 32 that divides 256")
    enc_layers: int = 6
    dec_layers: int = 6
    dim_feedforward: int = 2048
    nheads: int = 8
    num_queries: int = 900
    num_feature_levels: int = 4
    enc_n_points: int = 4
    dec_n_points: int = 4


_CONSTANTS = {
    "position_embedding": "sine",
    "pe_temperatureH": 20,
    "pe_temperatureW": 20,
    "pre_norm": False,
    "dropout": 0.0,
    "query_dim": 4,
    "num_patterns": 0,
    "two_stage_type": "standard",
    "transformer_activation": "relu",
    "embed_init_tgt": True,
    "use_text_enhancer": True,
    "use_fusion_layer": True,
    "use_checkpoint": False,
    "use_transformer_ckpt": False,
    "use_text_cross_attention": True,
    "text_dropout": 0.0,
    "fusion_dropout": 0.0,
    "fusion_droppath": 0.0,
}
"""Settings shared by the published configurations, in the form that the package's builders expect."""


def build(architecture: Architecture, text_encoder: Path) -> "groundingdino.GroundingDINO":
    """A GroundingDINO with untrained weights.

    Args:
        architecture: its sizes.
        text_encoder: a folder with BERT's configuration and tokenizer.
    """
    sizes = architecture.model_dump(exclude={"backbone", "image", "text_length"})
    args = SimpleNamespace(**_CONSTANTS, **sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about the package
        swin = SwinTransformer(drop_path_rate=0.0, **architecture.backbone.model_dump())
    backbone = Joiner(swin, build_position_encoding(args))
    backbone.num_channels = [swin.num_features[i] for i in architecture.backbone.out_indices]
    text = Weights(model=str(text_encoder))
    tokenizer = load_processor(AutoTokenizer, text, "grounding.model")
    bert = BertModel(load_processor(BertConfig, text, "grounding.model"))
    with text_side(FixedLengthTokenizer(tokenizer, architecture.text_length), bert):
        model = groundingdino.GroundingDINO(
            backbone,
            build_transformer(args),
            num_queries=architecture.num_queries,
            aux_loss=True,
            iter_update=True,
            query_dim=4,
            num_feature_levels=architecture.num_feature_levels,
            nheads=architecture.nheads,
            two_stage_type="standard",
            two_stage_bbox_embed_share=False,
            two_stage_class_embed_share=False,
            dn_number=0,
            sub_sentence_present=True,
        )
    fit_sine_embeddings(model)
    keep_rows_apart(model)
    return model
