"""Models that a manifest can name in ``score`` for further metrics.

DINOv2, depth, probes of CLIP, an OCR engine.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.score.evidence import Row
from stages.score.metrics import metrics_of

if TYPE_CHECKING:
    from stages.score.stage import ScoreConfig

PROBES = ("aesthetic", "nsfw")


def optional_problems(config: "ScoreConfig") -> Iterator[str]:
    """Problems with the optional models in the section ``score``."""
    from stages.models.weight_files import check_preprocessor, of_transformers, problems_of

    if config.dino is not None:
        check = of_transformers("a DINO model", ("Dino",), check_preprocessor)
        yield from problems_of("score.dino", config.dino, check)
    if config.depth is not None:
        check = of_transformers("a depth model", ("ForDepthEstimation",), check_preprocessor)
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
    """The optional models of a manifest. A metric is null if its model is not named.

    Args:
        config: the manifest's section ``score``.
        clip_width: d, the length of CLIP's embeddings, which the probes take.

    Raises:
        ValueError: a model cannot be loaded. The message names its manifest key.
    """

    def __init__(self, config: "ScoreConfig", clip_width: int) -> None:
        from stages.models.probe import Probe

        self.dino = self.depth = self.reader = None
        if config.dino is not None:
            from stages.models.dino import Dino

            self.dino = Dino(config.dino, "score.dino.model")
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

    def look(self, row: Row, embeddings: np.ndarray) -> dict[str, Any]:
        """The models' outputs for a row's pictures, as fields of :class:`stages.score.evidence.Seen`.

        Only models are used whose metric the row's task lists.

        Args:
            row: the row with its pictures.
            embeddings: CLIP's, float [images,d], for the probes.

        Raises:
            NotFiniteError: a model's output is not finite.
        """
        needs = {metric.needs for metric in metrics_of(row.task)}
        seen: dict[str, Any] = {
            "probed": {
                name: [probe.score(embedding) for embedding in embeddings]
                for name, probe in self.probes.items()
                if name in needs
            }
        }
        if self.dino is not None and "dino" in needs:
            seen["dino"] = list(self.dino.encode(row.images, len(row.images)))
        if self.depth is not None and "depth" in needs:
            seen["depth"] = [self.depth.nearness(image) for image in row.images]
        if self.reader is not None and "ocr" in needs:
            box = row.region.boxes[0]
            seen["read"] = [self.reader.compare(image, box, row.written) for image in row.images]
        return seen
