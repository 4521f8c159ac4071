"""Manifest sections of models that are one folder or one file."""

from typing import ClassVar

from pydantic import Field

from stages.base import Dtype, Weights


class ClipConfig(Weights):
    """The manifest's section ``clip``: a folder in open_clip's layout, or a model name.

    For a name, such as ``ViT-L-14``, ``revision`` is the tag of its weights, such as ``openai``.
    """

    implied: ClassVar = {"dtype": "float32"}

    dtype: Dtype = Field("float32", description="precision of its computations; weights stay as they are")


class ProbeWeights(Weights):
    """A safetensors file of a :class:`stages.models.probe.Probe`."""

    @property
    def from_hub(self) -> bool:
        return False
