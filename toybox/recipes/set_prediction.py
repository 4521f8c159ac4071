"""The detector's loss: queries are matched to boxes as in DETR, then words and boxes are compared."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou

WORDS_WEIGHT = 2.0
"""Weight of the loss on words, relative to the loss on boxes."""


@dataclass(frozen=True)
class Example:
    """A picture, its phrases, and the boxes [n,4] (as fractions) of the phrases that are present."""

    image: np.ndarray
    phrases: list[str]
    boxes: Tensor
    words: Tensor
    """bool [n,text_length]: the tokens of each box's phrase."""


def match(cost: np.ndarray) -> list[int]:
    """The queries of 0, 1 or 2 boxes with the least total cost; ``cost`` is [queries, boxes]."""
    if cost.shape[1] == 0:
        return []
    if cost.shape[1] == 1:
        return [int(cost[:, 0].argmin())]
    pairs = cost[:, 0][:, None] + cost[:, 1][None]
    np.fill_diagonal(pairs, np.inf)
    first, second = np.unravel_index(pairs.argmin(), pairs.shape)
    return [int(first), int(second)]


def set_loss(logits: Tensor, boxes: Tensor, examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Cross-entropy on the words and box loss of one layer (costs as in DINO)."""
    real = logits > -torch.inf
    logits = logits.masked_fill(~real, -20.0)
    target = torch.zeros_like(logits)
    distance = logits.new_zeros(())
    count = max(1, sum(len(example.boxes) for example in examples))
    for i, example in enumerate(examples):
        if not len(example.boxes):
            continue
        words = example.words.float()
        with torch.no_grad():
            score = logits[i].sigmoid() @ words.T / words.sum(1)
            corners = box_convert(boxes[i], "cxcywh", "xyxy")
            cost = 5 * torch.cdist(corners, example.boxes, p=1) - 2 * score
            cost -= 2 * generalized_box_iou(corners, example.boxes)
            queries = match(cost.cpu().numpy())
        target[i, queries] = words
        matched = boxes[i, queries]
        overlap = generalized_box_iou(box_convert(matched, "cxcywh", "xyxy"), example.boxes).diag()
        centred = box_convert(example.boxes, "xyxy", "cxcywh")
        distance = distance + 5 * (matched - centred).abs().sum() + 2 * (1 - overlap).sum()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return WORDS_WEIGHT * (entropy * real).sum() / len(examples), distance / count
