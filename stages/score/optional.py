"""Metrics of models that a manifest may name in ``score``: DINOv2, depth, probes of CLIP, an OCR engine."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.pair import EditPair

if TYPE_CHECKING:
    from stages.score.stage import ScoreConfig

PROBES = ("aesthetic", "nsfw")


def optional_problems(config: "ScoreConfig") -> Iterator[str]:
    """What would stop the models that the section ``score`` names."""
    from stages.models.weight_files import PREPROCESSOR, of_transformers, problems_of

    if config.dino is not None:
        check = of_transformers("a DINO model", ("Dino",), PREPROCESSOR)
        yield from problems_of("score.dino", config.dino, check)
    if config.depth is not None:
        check = of_transformers("a depth model", ("ForDepthEstimation",), PREPROCESSOR)
        yield from problems_of("score.depth", config.depth, check)
    for name in PROBES:
        weights = getattr(config, name)
        if weights is not None:
            yield from problems_of(f"score.{name}", weights, _check_probe)
    if config.ocr and find_spec("rapidocr_onnxruntime") is None:
        yield "score.ocr: true needs the package rapidocr-onnxruntime: pip install 'editpairs[ocr]'"


def _check_probe(file: Path) -> None:
    from stages.models.weight_files import check_tensors

    if set(check_tensors(file)) != {"weight", "bias"}:
        raise ValueError(f"{file} must hold 'weight' and one 'bias' alone")


class OptionalModels:
    """Those of a manifest; a metric whose model it does not name is null.

    Args:
        config: the manifest's section ``score``.
        clip_width: d of CLIP's embeddings, which the probes take.
        device: of the models.

    Raises:
        ValueError: a model cannot be loaded; the message names its key.
    """

    def __init__(self, config: "ScoreConfig", clip_width: int, device: str) -> None:
        from stages.models.probe import Probe

        self.dino = self.depth = self.reader = None
        if config.dino is not None:
            from stages.models.dino import Dino

            self.dino = Dino(config.dino, "score.dino.model", device)
        if config.depth is not None:
            from stages.models.depth import DepthEstimator

            self.depth = DepthEstimator(config.depth, "score.depth.model")
        if config.ocr:
            from stages.models.ocr import TextReader

            self.reader = TextReader()
        self.probes = {
            name: Probe(f"score.{name}", weights.name, clip_width)
            for name in PROBES
            if (weights := getattr(config, name)) is not None
        }

    def look(
        self, metrics: Sequence[str], images: Sequence[np.ndarray], boxes: np.ndarray, written: str
    ) -> dict[str, list[Any]]:
        """What a row's pictures are compared by, one entry a picture, by metric.

        Args:
            metrics: those that the row's task lists.
            images: uint8 [h,w,3], the anchor and the candidates.
            boxes: float [n,4], what was grounded.
            written: what is to be read in the first of ``boxes``.
        """
        found: dict[str, list[Any]] = {}
        if self.dino is not None and "dino" in metrics:
            found["dino"] = list(self.dino.encode(images, len(images)))
        if self.depth is not None and "depth_change" in metrics:
            found["depth_change"] = [self.depth.nearness(image) for image in images]
        if self.reader is not None and "text_read" in metrics:
            found["text_read"] = [self.reader.compare(image, boxes[0], written) for image in images]
        return found

    def score(
        self, pair: EditPair[int], embeddings: np.ndarray, found: Mapping[str, Sequence[Any]]
    ) -> dict[str, float | None]:
        """The metrics of a pair, from CLIP's embeddings [images,d] and what :meth:`look` found.

        A probe's is that of the worse picture: both are published.
        """
        scores: dict[str, float | None] = {}
        for name, probe in self.probes.items():
            both = [probe.score(embeddings[picture]) for picture in (pair.input, pair.target)]
            scores[name] = max(both) if name == "nsfw" else min(both)
        if features := found.get("dino"):
            scores["dino"] = float(features[pair.input] @ features[pair.target])
        if depths := found.get("depth_change"):
            scores["depth_change"] = float(np.abs(depths[pair.input] - depths[pair.target]).mean())
        if read := found.get("text_read"):
            scores["text_read"] = read[pair.target]
        return scores
