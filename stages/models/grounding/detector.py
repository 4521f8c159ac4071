"""Finding a phrase in a picture: what both libraries' GroundingDINO have in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert, clip_boxes_to_image, nms, remove_small_boxes

from stages.models.batches import by_shape, full_batches, without_rest
from stages.models.device import computing_in
from stages.models.grounding import GroundingConfig
from stages.models.grounding.words import caption_of
from stages.pictures.masks import share_within
from stages.unknown_words import unknown_words

DUPLICATE_IOU = 0.8
"""If two boxes have a larger IoU than this, the box with the lower score is dropped."""


@dataclass(frozen=True)
class Detections:
    """The result for one phrase in one picture, best box first.

    A box's score is the mean over the phrase's words of the sigmoid of the word's logit, in [0,1].
    """

    boxes: np.ndarray
    """float32 [n,4]: x0, y0, x1, y1 in pixels."""
    scores: np.ndarray
    """float32 [n]."""
    best_box: np.ndarray
    """float32 [4]: the box with the highest score, above the thresholds or not."""
    best_score: float
    """The highest score of any box, above the thresholds or not. 0 for a phrase without words; NaN if the
    detector's output is not finite."""
    all_boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """float32 [m,4]: all boxes, above the thresholds or not."""
    all_scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    """float32 [m]."""
    unknown: tuple[str, ...] = ()
    """Words of the phrase that the detector does not know.

    If there are any, the phrase is not searched for.
    """

    def best_within(self, region: np.ndarray) -> float:
        """The highest score of a box with at least half its area in a region, bool [h,w]; 0 without one."""
        if math.isnan(self.best_score):
            return math.nan
        inside = [share_within(box, region) >= 0.5 for box in self.all_boxes]
        return float(self.all_scores[inside].max(initial=0))


class Detector(ABC):
    """GroundingDINO with its thresholds and preprocessing."""

    config: GroundingConfig
    device: torch.device

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """Its tokenizer, of transformers."""

    def find(self, images: Sequence[np.ndarray], phrases: Sequence[str], batch: int) -> list[Detections]:
        """Search for ``phrases[i]`` in ``images[i]`` (uint8 RGB [h,w,3]), ``batch`` pictures per pass.

        A smaller last batch is filled with copies of its last row, so that every forward pass has the same
        shape. On a CPU, the batch is rounded up to a multiple of 8, so that a row's place does not matter. A
        phrase with a word that the detector does not know is not found (``unknown``).
        """
        found = [NOTHING] * len(images)
        if self.device.type == "cpu":
            batch = without_rest(batch)
        # Pictures of several shapes would be padded to the largest, so that a row depended on its neighbours.
        groups = by_shape(range(len(images)), images)
        for rows, filled_rows in (part for group in groups for part in full_batches(group, batch)):
            with computing_in(self.config.dtype, self.device):
                boxes, word_scores, words = self.predict(
                    [images[i] for i in filled_rows], [phrases[i] for i in filled_rows]
                )
            for k, i in enumerate(rows):
                if unknown := unknown_words(self.tokenizer, caption_of(phrases[i])):
                    found[i] = replace(NOTHING, unknown=unknown)
                    continue
                size = (images[i].shape[0], images[i].shape[1])
                found[i] = self._select(boxes[k], word_scores[k][:, words[k]], size)
        return found

    @abstractmethod
    def predict(self, images: Sequence[np.ndarray], phrases: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """One forward pass: boxes [b,q,4] (centre and size, as fractions), scores [b,q,t], words [b,t].

        ``words`` is True for the tokens of the phrase (:func:`stages.models.grounding.words.words_of`). A
        score is NaN if its logit is not finite.
        """

    def _select(self, boxes: Tensor, word_scores: Tensor, size: tuple[int, int]) -> Detections:
        """Apply the thresholds to boxes [q,4] with scores [q, words of the phrase]."""
        if not word_scores.shape[1]:
            return NOTHING
        if not (boxes.isfinite().all() and word_scores.isfinite().all()):
            return replace(NOTHING, best_score=math.nan)
        boxes, (height, width) = boxes.float(), size
        scale = boxes.new_tensor([width, height, width, height])
        pixels = clip_boxes_to_image(box_convert(boxes, "cxcywh", "xyxy") * scale, size)
        scores, best_words = word_scores.mean(1), word_scores.amax(1)
        best = int(scores.argmax())
        config = self.config
        passing = (best_words >= config.box_threshold) & (scores >= config.text_threshold)
        index = passing.nonzero()[:, 0]
        index = index[remove_small_boxes(pixels[index], 1.0)]
        index = index[nms(pixels[index], scores[index], DUPLICATE_IOU)]
        return Detections(
            pixels[index].float().cpu().numpy(),
            scores[index].float().cpu().numpy(),
            pixels[best].float().cpu().numpy(),
            float(scores[best]),
            pixels.float().cpu().numpy(),
            scores.float().cpu().numpy(),
        )


NOTHING = Detections(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(4, np.float32), best_score=0.0
)
"""The result for a phrase without words."""


def scores_of(logits: Tensor, words: Tensor) -> Tensor:
    """Scores [b,q,t] from logits [b,q,t or more]. NaN if a word's logit is not finite.

    (Padding has logits of minus infinity in both libraries.)
    """
    logits = logits[..., : words.shape[1]].float()
    return logits.sigmoid().masked_fill(words[:, None] & ~logits.isfinite(), math.nan)
