"""What a FLUX.1 pipeline's configurations say, without a model library."""

from collections.abc import Mapping
from typing import Any

PATCH = 2
"""Latents along a side of a token."""
SIDE = 128
"""The side in latents of a picture of the model's own size: 1024 pixels."""


def text_length(transformer: Mapping[str, Any]) -> int:
    """Tokens of a prompt that T5 reads: 256 for schnell, 512 for dev, as they were trained."""
    return 512 if transformer.get("guidance_embeds") else 256
