"""What a manifest says of models that are one folder or file each."""

from stages.base import Weights


class ClipConfig(Weights):
    """The manifest's section ``clip``: a folder in open_clip's layout, or a name and, as ``revision``,
    the tag of its weights (such as ``ViT-L-14`` and ``openai``).
    """


class ProbeWeights(Weights):
    """A safetensors file (:class:`stages.models.probe.Probe`)."""

    @property
    def from_hub(self) -> bool:
        return False


class SegmenterWeights(Weights):
    """A SAM folder of ``editpairs convert``."""

    @property
    def from_hub(self) -> bool:
        return False
