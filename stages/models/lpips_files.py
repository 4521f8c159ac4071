"""Checks of LPIPS's backbone without loading it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Backbone = Literal["alex", "vgg"]
_LAST: Mapping[Backbone, tuple[str, tuple[int, ...]]] = {
    "alex": ("features.10.weight", (256, 256, 3, 3)),
    "vgg": ("features.28.weight", (512, 512, 3, 3)),
}
"""The last convolution of each backbone, with its shape."""


def backbone_of(shapes: Mapping[str, tuple[int, ...]]) -> Backbone:
    """The backbone that tensors of these names and shapes belong to.

    Raises:
        ValueError: neither.
    """
    for backbone, (name, shape) in _LAST.items():
        if shapes.get(name) == shape:
            return backbone
    raise ValueError(
        "it holds neither torchvision's AlexNet nor its VGG16: no features.10.weight or features.28.weight "
        "of their shapes"
    )


def check_backbone(folder: Path) -> None:
    """Check a folder with a backbone.

    Raises:
        ValueError: it is not usable.
    """
    from stages.models.weight_files import tensor_shapes

    backbone_of(tensor_shapes(folder / "model.safetensors"))
