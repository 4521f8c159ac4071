"""Finding a phrase in a picture with GroundingDINO."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from groundingdino.util.misc import NestedTensor, nested_tensor_from_tensor_list
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, clip_boxes_to_image, nms, remove_small_boxes

from stages.models.batches import full_batches, without_rest
from stages.models.device import default_device
from stages.models.grounding import GroundingConfig
from stages.models.grounding.architecture import (
    TEXT_ENCODER,
    Architecture,
    ImageInput,
    build,
    groundingdino,
)
from stages.models.grounding.words import caption_of, words_of
from stages.models.weights import fill_from_folder, require_files
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


class Detector:
    """GroundingDINO with its thresholds and preprocessing."""

    def __init__(
        self, model: "groundingdino.GroundingDINO", image: ImageInput, config: GroundingConfig
    ) -> None:
        self.model, self.image, self.config = model.eval(), image, config
        self.device = next(model.parameters()).device

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer.tokenizer

    @classmethod
    def load(cls, config: GroundingConfig) -> "Detector":
        """Load a weights folder, described in ``stages.models.grounding.architecture``."""
        folder = require_files(config, "grounding.model", "config.json", "model.safetensors", TEXT_ENCODER)
        architecture = Architecture.model_validate_json((folder / "config.json").read_bytes())
        model = build(architecture, folder / TEXT_ENCODER)
        fill_from_folder(model, config, "grounding.model")
        return cls(model.to(default_device()), architecture.image, config)

    def find(self, images: Sequence[np.ndarray], phrases: Sequence[str], batch: int) -> list[Detections]:
        """Search for ``phrases[i]`` in ``images[i]`` (uint8 RGB [h,w,3]), ``batch`` pictures per pass.

        A smaller last batch is filled with copies of its last row, so that every forward pass has the same
        shape. On a CPU, the batch is rounded up to a multiple of 8, so that a row's place does not matter. A
        phrase with a word that the detector does not know is not found (``unknown``).
        """
        found = []
        if self.device.type == "cpu":
            batch = without_rest(batch)
        for rows, filled_rows in full_batches(range(len(images)), batch):
            boxes, word_scores, words = self.predict(
                [images[i] for i in filled_rows], [phrases[i] for i in filled_rows]
            )
            for k, i in enumerate(rows):
                if unknown := unknown_words(self.tokenizer, caption_of(phrases[i])):
                    found.append(replace(NOTHING, unknown=unknown))
                    continue
                size = (images[i].shape[0], images[i].shape[1])
                found.append(self._select(boxes[k], word_scores[k][:, words[k]], size))
        return found

    @torch.inference_mode()
    def predict(self, images: Sequence[np.ndarray], phrases: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """One forward pass: boxes [b,q,4] (centre and size, as fractions), scores [b,q,t], words [b,t].

        ``words`` is True for the tokens of the phrase (:func:`stages.models.grounding.words.words_of`). A
        score is NaN if its logit is not finite.
        """
        captions = [caption_of(phrase) for phrase in phrases]
        pictures = preprocess(images, self.image, self.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output = self.model(pictures, captions=captions)
        tokens = self.model.tokenizer(captions)["input_ids"].to(self.device)
        words = words_of(self.tokenizer, captions, tokens)
        return output["pred_boxes"], scores_of(output["pred_logits"], words), words

    def _select(self, boxes: Tensor, word_scores: Tensor, size: tuple[int, int]) -> Detections:
        """Apply the thresholds to boxes [q,4] with scores [q, words of the phrase]."""
        if not word_scores.shape[1]:
            return NOTHING
        if not (boxes.isfinite().all() and word_scores.isfinite().all()):
            return replace(NOTHING, best_score=math.nan)
        height, width = size
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
    logits = logits[..., : words.shape[1]]
    return logits.sigmoid().masked_fill(words[:, None] & ~logits.isfinite(), math.nan)


def preprocess(images: Sequence[np.ndarray], config: ImageInput, device: torch.device) -> NestedTensor:
    """Resize, normalise and pad uint8 RGB pictures [h,w,3] to one batch of tensors [3,h',w']."""
    return nested_tensor_from_tensor_list([_normalised(image, config, device) for image in images])


def _normalised(image: np.ndarray, config: ImageInput, device: torch.device) -> Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device).float() / 255
    height, width = image.shape[:2]
    factor = min(config.shortest_side / min(height, width), config.longest_side / max(height, width))
    size = (round(height * factor), round(width * factor))
    if size != (height, width):
        pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (config.mean, config.std))
    return (pixels - mean) / std
