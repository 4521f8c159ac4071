"""Linear probes on CLIP embeddings, such as LAION's aesthetic predictor or a probe for unsafe pictures."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file


class Probe:
    """``weight @ embedding + bias`` for an embedding of length 1.

    The file is safetensors with ``weight`` [d] or [1,d] and ``bias`` [] or [1]. The probe must have been
    fitted to embeddings of ``clip.model``.

    Args:
        key: the manifest key, for error messages.
        path: the safetensors file.
        width: d, the length of the embeddings.

    Raises:
        ValueError: the file is missing, or is not such a probe.
    """

    def __init__(self, key: str, path: str, width: int) -> None:
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{key}.model: {path} cannot be read as safetensors: {error}") from error
        if set(tensors) != {"weight", "bias"} or tensors["bias"].size != 1:
            raise ValueError(f"{key}.model: {Path(path).name} must hold 'weight' and one 'bias' alone")
        self.weight = tensors["weight"].astype(np.float32).ravel()
        self.bias = float(tensors["bias"].ravel()[0])
        if self.weight.size != width:
            raise ValueError(
                f"{key}.model: the probe takes embeddings of {self.weight.size} numbers, "
                f"clip.model gives {width}: use the probe of that model"
            )

    def score(self, embedding: np.ndarray) -> float:
        """The probe's value for one embedding [d]."""
        return float(self.weight @ embedding + self.bias)
