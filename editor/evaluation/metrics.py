"""Emu Edit's metrics, computed by the code of the stage ``score``, and the same against the true result.

Every figure of a model carries its name and the pixels at which it sees pictures, because one editor scores
differently by another CLIP or resolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from editor.data.edit_sets import Edit
from pipeline.errors import UserError
from stages.base import Weights
from stages.models.clip import Clip, direction, similarity
from stages.models.config import ClipConfig
from stages.models.dino import Dino
from stages.pictures.fidelity import as_float, mean_change

MEANINGS = {
    "clip_direction": "CLIPdir: CLIP's change from input to edited picture against the captions' change",
    "clip_image": "CLIPim: CLIP similarity of input and edited picture",
    "clip_output": "CLIPout: CLIP similarity of edited picture and output caption",
    "l1": "mean |edited - input| over RGB in [0,1]",
    "dino": "DINO similarity of input and edited picture",
    "clip_target": "CLIP similarity of edited picture and true result",
    "l1_target": "mean |edited - true result| over RGB in [0,1]",
    "dino_target": "DINO similarity of edited picture and true result",
}
"""What is measured. A higher value is better, except of ``l1``."""
CLIPS = ("ViT-B-32@openai", "ViT-L-14@openai")
DINOS = ("facebook/dino-vits16", "facebook/dinov2-base")
"""Models by default: those of MagicBrush's evaluation, and larger ones."""


@dataclass(frozen=True)
class Column:
    """A metric, and the model that it is measured with (empty for L1)."""

    metric: str
    model: str = ""

    def __str__(self) -> str:
        return f"{self.metric} ({self.model})" if self.model else self.metric


class Measures:
    """Computes all metrics of edited pictures.

    Args:
        clips: CLIP models, each a folder or ``NAME@TAG`` of open_clip.
        dinos: DINO models of transformers, each a folder or a hub name, with ``@REVISION`` or without.

    Raises:
        UserError: a name has no tag.
        OSError: a model cannot be read.
    """

    def __init__(self, clips: Sequence[str] = CLIPS, dinos: Sequence[str] = DINOS) -> None:
        self.clips = {name: Clip.load(_clip_config(name), "--clip") for name in clips}
        self.dinos = {name: Dino(_dino_weights(name), "--dino") for name in dinos}

    @property
    def models(self) -> dict[str, int]:
        """The side in pixels at which each model sees pictures."""
        clips = {name: model.side for name, model in self.clips.items()}
        return clips | {name: model.side for name, model in self.dinos.items()}

    @property
    def columns(self) -> list[Column]:
        """Every figure, in order."""
        names = {"clip": list(self.clips), "dino": list(self.dinos)}
        return [Column(metric, name) for metric in MEANINGS for name in names.get(metric.split("_")[0], [""])]

    def __call__(self, edits: Sequence[Edit], pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Values float [edits, columns]; NaN where a metric does not apply.

        All pictures are uint8 [H,W,3] of one size.
        """
        values: dict[Column, list[float]] = {column: [] for column in self.columns}
        for edit, picture in zip(edits, pictures, strict=True):
            for metric, other in (("l1", edit.before), ("l1_target", edit.after)):
                values[Column(metric)].append(_distance(picture, other))
        for name, clip in self.clips.items():
            self._by_clip(name, clip, edits, pictures, values)
        for name, dino in self.dinos.items():
            before, edited, after = _embedded(dino.encode, edits, pictures)
            for k in range(len(edits)):
                values[Column("dino", name)].append(similarity(before[k], edited[k]))
                values[Column("dino_target", name)].append(_similarity(after[k], edited[k]))
        return np.array([values[column] for column in self.columns], np.float64).T

    def _by_clip(
        self,
        name: str,
        clip: Clip,
        edits: Sequence[Edit],
        pictures: Sequence[np.ndarray],
        values: dict[Column, list[float]],
    ) -> None:
        before, edited, after = _embedded(clip.encode_images, edits, pictures)
        captions = [caption for edit in edits for caption in (edit.before_caption, edit.after_caption)]
        texts = dict(zip(captions, clip.encode_texts(captions, len(edits)), strict=True))
        for k, edit in enumerate(edits):
            first, last = (
                texts[caption] if caption and clip.knows(caption) else None
                for caption in (edit.before_caption, edit.after_caption)
            )
            turned = np.nan
            if first is not None and last is not None and edit.before_caption != edit.after_caption:
                turned = direction(before[k], edited[k], first, last)
            found = {
                "clip_direction": turned,
                "clip_image": similarity(before[k], edited[k]),
                "clip_output": _similarity(last, edited[k]),
                "clip_target": _similarity(after[k], edited[k]),
            }
            for metric, value in found.items():
                values[Column(metric, name)].append(value)


def _embedded(
    encode: Callable[[list[np.ndarray], int], np.ndarray],
    edits: Sequence[Edit],
    pictures: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray | None]]:
    """Embeddings of inputs, edited pictures and true results (None where there is none)."""
    count = len(edits)
    targets = [edit.after for edit in edits if edit.after is not None]
    found = encode([*(edit.before for edit in edits), *pictures, *targets], count)
    rest = iter(found[2 * count :])
    after = [None if edit.after is None else next(rest) for edit in edits]
    return found[:count], found[count : 2 * count], after


def _similarity(first: np.ndarray | None, second: np.ndarray) -> float:
    return float("nan") if first is None else similarity(first, second)


def _distance(first: np.ndarray, second: np.ndarray | None) -> float:
    if second is None:
        return float("nan")
    everywhere = np.ones(first.shape[:2], bool)
    return mean_change(as_float(first), as_float(second), everywhere) or 0.0


def _clip_config(name: str) -> ClipConfig:
    model, _, tag = name.partition("@")
    config = ClipConfig(model=model, revision=tag or None)
    if config.path is None and config.revision is None:
        raise UserError(f"--clip {name}: which weights? Write {name}@TAG, such as ViT-B-32@openai")
    return config


def _dino_weights(name: str) -> Weights:
    model, _, revision = name.partition("@")
    return Weights(model=model, revision=revision or None)
