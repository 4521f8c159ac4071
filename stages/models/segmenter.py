"""Segment Anything, prompted by boxes, built with the sizes in a JSON file.

A weights folder holds ``config.json`` (:class:`Architecture`) and ``model.safetensors`` with the parameter
names of the published checkpoints.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor
from torch.nn import functional as F

from stages.base import Section, Weights
from stages.models.batches import full_batches
from stages.models.device import default_device
from stages.models.weights import fill_from_folder, require_files


class Encoder(Section):
    """The image encoder; the defaults are ViT-B."""

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    window_size: int = 14


class Architecture(Section):
    """The sizes of a SAM; the defaults are the published ViT-B."""

    image_size: int = 1024
    patch_size: int = 16
    encoder: Encoder = Encoder()
    prompt_embed_dim: int = 256
    mask_in_chans: int = 16
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    decoder_num_heads: int = 8
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256


def build(architecture: Architecture) -> Sam:
    """A Sam with untrained weights."""
    a = architecture
    grid = a.image_size // a.patch_size
    encoder = ImageEncoderViT(
        img_size=a.image_size,
        patch_size=a.patch_size,
        out_chans=a.prompt_embed_dim,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        **a.encoder.model_dump(),
    )
    prompts = PromptEncoder(
        embed_dim=a.prompt_embed_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(a.image_size, a.image_size),
        mask_in_chans=a.mask_in_chans,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=a.decoder_depth,
            embedding_dim=a.prompt_embed_dim,
            mlp_dim=a.decoder_mlp_dim,
            num_heads=a.decoder_num_heads,
        ),
        transformer_dim=a.prompt_embed_dim,
        iou_head_depth=a.iou_head_depth,
        iou_head_hidden_dim=a.iou_head_hidden_dim,
    )
    return Sam(encoder, prompts, decoder)


class Segmenter:
    """A Sam that turns boxes into masks."""

    def __init__(self, model: Sam) -> None:
        self.model = model.eval()

    @classmethod
    def load(cls, weights: Weights) -> "Segmenter":
        """Load a weights folder.

        Raises:
            FileNotFoundError: the folder lacks a file. The message names the manifest key.
        """
        key = "mask.segmenter.model"
        folder = require_files(weights, key, "config.json", "model.safetensors")
        sam = build(Architecture.model_validate_json((folder / "config.json").read_bytes()))
        fill_from_folder(sam, weights, key)
        return cls(sam.to(default_device()))

    @torch.inference_mode()
    def segment(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], batch: int
    ) -> list[np.ndarray | None]:
        """One mask per box (``multimask_output=False``).

        Args:
            images: uint8 RGB [h,w,3].
            boxes: for each picture float [n,4], x0, y0, x1, y1 in pixels. Pictures without boxes are not
                encoded.
            batch: pictures per forward pass of the encoder; a smaller last batch is filled up.

        Returns:
            For each picture bool [n,h,w]; None if the model's output is not finite.
        """
        masks: list[np.ndarray | None] = [np.zeros((0, *image.shape[:2]), bool) for image in images]
        boxed = [i for i, found in enumerate(boxes) if len(found)]
        for rows, filled_rows in full_batches(boxed, batch):
            inputs = [self._resized(images[i]) for i in filled_rows]
            embeddings = self.model.image_encoder(torch.stack([self.model.preprocess(x) for x in inputs]))
            for i, embedding, resized in zip(rows, embeddings, inputs, strict=False):
                size, shape = resized.shape[-2:], images[i].shape[:2]
                masks[i] = self._decode(embedding[None], boxes[i], (size[0], size[1]), (shape[0], shape[1]))
        return masks

    def _decode(
        self, embedding: Tensor, boxes: np.ndarray, size: tuple[int, int], shape: tuple[int, int]
    ) -> np.ndarray | None:
        """Decode boxes in a picture of ``shape``, whose ``embedding`` was computed at ``size``, to masks."""
        sam = self.model
        scale = np.array((size[1] / shape[1], size[0] / shape[0]) * 2, np.float32)
        prompts = torch.from_numpy(boxes.astype(np.float32) * scale).to(sam.device)
        sparse, dense = sam.prompt_encoder(points=None, boxes=prompts, masks=None)
        logits, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        full = sam.postprocess_masks(logits, size, shape)[:, 0]
        return (full > sam.mask_threshold).cpu().numpy() if full.isfinite().all() else None

    def _resized(self, image: np.ndarray) -> Tensor:
        """uint8 RGB [h,w,3] to float [3,h',w'] in [0,255]; the longer side has the model's size."""
        pixels = (
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(self.model.device).float()
        )
        height, width = image.shape[:2]
        factor = self.model.image_encoder.img_size / max(height, width)
        size = (round(height * factor), round(width * factor))
        if size == (height, width):
            return pixels
        return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
