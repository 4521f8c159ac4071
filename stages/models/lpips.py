"""LPIPS (Zhang et al. 2018), by torchmetrics, with a backbone from safetensors.

torchmetrics ships the linear heads. It would download the backbone as a pickle; here it comes from a file
with torchvision's names (``features.0.weight``, ...), such as timm's ``vgg16.tv_in1k``.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torchmetrics.functional.image.lpips import _LPIPS, _normalize_tensor, _upsample

from stages.base import Weights
from stages.models.device import default_device
from stages.models.lpips_files import backbone_of
from stages.models.weights import read_tensors


class Lpips:
    """An LPIPS network.

    Raises:
        OSError: the backbone cannot be loaded. The message names the manifest key.
    """

    def __init__(self, weights: Weights, key: str) -> None:
        tensors = read_tensors(weights, key)
        try:
            self.network = _network(tensors)
        except (ValueError, KeyError, RuntimeError) as error:
            raise OSError(f"{key}: {weights.model} cannot be used: {error}") from error
        self.device = default_device()
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def maps(self, first: np.ndarray, others: Sequence[np.ndarray], batch: int) -> list[np.ndarray]:
        """LPIPS's map of ``first`` and each of ``others``, float32 [h,w], 0 where they are equal.

        Args:
            first: uint8 RGB [h,w,3].
            others: of the same size.
            batch: pictures per pass.
        """
        reference = self._features([first])
        found = []
        for start in range(0, len(others), batch):
            levels = zip(self._features(others[start : start + batch]), reference, strict=True)
            layers = zip(self.network.lins, levels, strict=True)
            apart = [_upsample(lin((one - other) ** 2), first.shape[:2]) for lin, (one, other) in layers]
            found += list(sum(apart)[:, 0].float().cpu().numpy())
        return found

    def _features(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Normalised features of uint8 pictures by level, each [n,c,h',w']."""
        stacked = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
        pixels = torch.from_numpy(stacked).to(self.device).float() / 127.5 - 1
        return [_normalize_tensor(level) for level in self.network.net(self.network.scaling_layer(pixels))]


def _network(tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """LPIPS with spatial output, and the backbone that ``tensors`` hold."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    network = _LPIPS(net=backbone_of(shapes), spatial=True, pnet_rand=True)
    names = backbone_names(network.net.state_dict())
    network.net.load_state_dict({ours: tensors[theirs] for ours, theirs in names.items()})
    return network


def backbone_names(ours: Iterable[str]) -> dict[str, str]:
    """torchvision's name of each tensor of LPIPS's backbone: ``slice2.7.weight`` is ``features.7.weight``."""
    return {name: f"features.{name.partition('.')[2]}" for name in ours}
