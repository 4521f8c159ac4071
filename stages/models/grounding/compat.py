"""Adaptations that let groundingdino-py 0.4.0 run with transformers 5 and at any width.

1. Its ``BertModelWarper`` uses methods that ``BertModel`` no longer has. Its constructor downloads tokenizer
and text encoder by name and prints that name. Inside :func:`text_side`, the constructor uses the given
tokenizer and a :class:`TextEncoder` instead. 2. Two sine embeddings are fixed to ``d_model = 256``, whatever
the model's width. Hooks on the built model (:func:`fit_sine_embeddings`) convert them to the model's width.
At width 256 they change nothing. 3. Rows of a batch influence each other (:func:`keep_rows_apart` stops
this).

No patch to the package remains after construction.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel, PreTrainedTokenizerBase

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from groundingdino.models.GroundingDINO import groundingdino
    from groundingdino.models.GroundingDINO.fuse_modules import BiMultiHeadAttention

PUBLISHED_WIDTH = 256
"""The ``d_model`` that the package's sine embeddings assume."""


class TextEncoder(nn.Module):
    """BERT with GroundingDINO's sub-sentence mask, in place of ``BertModelWarper``.

    The submodules keep the names ``embeddings``, ``encoder`` and ``pooler``, so that the parameter names of
    published checkpoints (``bert.encoder.layer.0...``) fit.
    """

    def __init__(self, bert_model: BertModel) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        """``attention_mask`` [b,t,t] is True where a token (row) may attend to another (column)."""
        embedded = self.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        blocked = ~attention_mask[:, None].bool()
        bias = torch.zeros_like(blocked, dtype=embedded.dtype)
        bias = bias.masked_fill(blocked, torch.finfo(embedded.dtype).min)
        return {"last_hidden_state": self.encoder(embedded, attention_mask=bias).last_hidden_state}


class FixedLengthTokenizer:
    """A tokenizer that cuts and pads every text to ``length`` tokens. A cut text still ends with a full stop.

    The package pads to the longest caption of a batch. Shapes, and so the last bits of a row's scores, would
    then depend on the row's neighbours.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, texts: list[str], **_: Any) -> Any:
        encoded = self.tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        ids = encoded["input_ids"]
        ids[ids[:, -1] == self.tokenizer.sep_token_id, -2] = self.tokenizer.convert_tokens_to_ids(".")
        return encoded

    def convert_tokens_to_ids(self, tokens: list[str]) -> int | list[int]:
        return self.tokenizer.convert_tokens_to_ids(tokens)


@contextmanager
def text_side(tokenizer: FixedLengthTokenizer, bert: BertModel) -> Iterator[None]:
    """Inside the block, ``GroundingDINO(...)`` is built with this tokenizer and this text encoder."""
    replaced = {
        "get_tokenlizer": SimpleNamespace(
            get_tokenlizer=lambda _: tokenizer, get_pretrained_language_model=lambda _: bert
        ),
        "BertModelWarper": TextEncoder,
    }
    originals = {name: getattr(groundingdino, name) for name in replaced}
    try:
        for name, value in replaced.items():
            setattr(groundingdino, name, value)
        yield
    finally:
        for name, value in originals.items():
            setattr(groundingdino, name, value)


def fit_sine_embeddings(model: groundingdino.GroundingDINO) -> None:
    """Convert both sine embeddings to the model's width.

    Raises:
        ValueError: the width does not divide 256.
    """
    width = model.transformer.d_model
    if PUBLISHED_WIDTH % width:
        raise ValueError(f"hidden_dim must divide {PUBLISHED_WIDTH}, not {width}")

    def embed_text_positions(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = kwargs.pop("position_ids")
        return args, {**kwargs, "position_ids": None, "pos_text": sine_embedding(positions, width)}

    def keep_frequencies(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (embedding,) = args
        pairs = embedding.unflatten(-1, (4, PUBLISHED_WIDTH // 4, 2))
        return (pairs[..., :: PUBLISHED_WIDTH // width, :].flatten(-3),)

    model.transformer.encoder.register_forward_pre_hook(embed_text_positions, with_kwargs=True)
    model.transformer.decoder.ref_point_head.register_forward_pre_hook(keep_frequencies)


def sine_embedding(positions: Tensor, width: int) -> Tensor:
    """Positions [b,t] as [b,t,width]: sine and cosine alternate, with frequencies 2 pi 10000**(-2k/width)."""
    k = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = 2 * math.pi * positions[..., None] / 10000 ** (k / width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def keep_rows_apart(model: "groundingdino.GroundingDINO") -> None:
    """Undo two effects by which the package lets rows of a batch influence each other.

    1. The text enhancer repeats its masks batch by batch, but its attention expects them head by head. A row
    in a batch is then read with other rows' masks. A batch of one, as in the published demo, is correct. 2.
    The fusion subtracts the largest logit of the whole batch, which changes the last bits of a row.
    """
    for layer in model.transformer.encoder.text_layers:
        layer.register_forward_pre_hook(_mask_by_head, with_kwargs=True)
    for module in model.modules():
        if isinstance(module, BiMultiHeadAttention):
            module.stable_softmax_2d = False


def _mask_by_head(
    layer: Any, args: tuple[Any, ...], keys: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**keys, "src_mask": keys["src_mask"].repeat_interleave(layer.nhead, 0)}
