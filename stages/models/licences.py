"""What licences of well-known models say about their outputs and about training on them.

For orientation, as known in November 2026. Whoever trains on pairs reads the model's card and licence: names
are reused, and licences change.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Terms:
    """A licence, and what it says about training on outputs."""

    licence: str
    outputs: str


_FREE = "no limits on outputs"
_RAIL = "claims no rights in outputs, no ban on training; its list of forbidden uses applies"
_APACHE, _MIT = Terms("Apache-2.0", _FREE), Terms("MIT", _FREE)
_COMMUNITY = "outputs may not create or improve another foundational generative model; limit of revenue"
_BUILT_WITH_QWEN = "a published model trained on outputs must say Built with Qwen, or Improved using Qwen"
_LLAMA = "a published model trained on outputs must have a name that begins with Llama; Built with Llama"

BY_NAME = {
    "stable-diffusion-v1-5/*": Terms("CreativeML OpenRAIL-M", _RAIL),
    "runwayml/stable-diffusion-v1-5": Terms("CreativeML OpenRAIL-M", _RAIL),
    "compvis/stable-diffusion-v1-*": Terms("CreativeML OpenRAIL-M", _RAIL),
    "stabilityai/stable-diffusion-2*": Terms("CreativeML OpenRAIL++-M", _RAIL),
    "stabilityai/stable-diffusion-xl-*-1.0": Terms("CreativeML OpenRAIL++-M", _RAIL),
    "stabilityai/sdxl-turbo": Terms(
        "Stability AI (non-commercial, later community)",
        f"no commercial use without an agreement; community: {_COMMUNITY}",
    ),
    "stabilityai/sd-turbo": Terms(
        "Stability AI (non-commercial, later community)",
        f"no commercial use without an agreement; community: {_COMMUNITY}",
    ),
    "stabilityai/stable-diffusion-3*": Terms("Stability AI Community", _COMMUNITY),
    "black-forest-labs/flux.1-schnell": _APACHE,
    "black-forest-labs/flux.1-*dev": Terms(
        "FLUX.1 [dev] Non-Commercial", "outputs may not train a model that competes with FLUX.1 [dev]"
    ),
    "qwen/qwen-image*": _APACHE,
    "tongyi-mai/z-image*": _APACHE,
    "pixart-alpha/*": Terms("CreativeML OpenRAIL++-M", _RAIL),
    "efficient-large-model/sana_*": Terms(
        "NVIDIA NSCL v2-custom; Gemma Terms of Use for the text encoder",
        "research and evaluation only, as NVIDIA's source code licences say; not seen: read LICENSE.txt",
    ),
    "timbrooks/instruct-pix2pix": _MIT,
    "idea-research/grounding-dino-*": _APACHE,
    "facebook/sam-vit-*": _APACHE,
    "facebook/sam2*": _APACHE,
    "facebook/dinov2-*": _APACHE,
    "facebook/dino-vit*": _APACHE,
    "openai/clip-*": _MIT,
    "vit-*": Terms("MIT (open_clip's of OpenAI and LAION; others differ)", _FREE),
    "depth-anything/depth-anything-v2-small*": _APACHE,
    "depth-anything/depth-anything-v2-*": Terms("CC-BY-NC-4.0", "non-commercial"),
    "usyd-community/vitpose-*": _APACHE,
    "qwen/qwen2.5-*3b*": Terms("Qwen Research", f"non-commercial; {_BUILT_WITH_QWEN}"),
    "qwen/qwen2.5-*72b*": Terms("Qwen", _BUILT_WITH_QWEN),
    "qwen/qwen2.5-*": _APACHE,
    "qwen/qwen3-*": _APACHE,
    "meta-llama/*llama-3.[123]*": Terms("Llama 3.x Community", _LLAMA),
    "meta-llama/*": Terms("Llama 2 or 3 Community", "outputs may not improve another large language model"),
    "mistralai/mistral-7b-*": _APACHE,
    "google/gemma-*": Terms(
        "Gemma Terms of Use", "a model trained on outputs to act like Gemma falls under them"
    ),
    "gpt-*": Terms("OpenAI's terms of use", "outputs may not train models that compete with OpenAI"),
}
"""Terms by hub name or name at a server, in lower case; the first pattern that fits counts."""

BY_LICENCE = {
    **dict.fromkeys(("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0"), _FREE),
    **dict.fromkeys(("creativeml-openrail-m", "openrail", "openrail++"), _RAIL),
    **dict.fromkeys(("cc-by-nc-4.0", "cc-by-nc-sa-4.0"), "non-commercial"),
}
"""What is known of outputs by a card's identifier of the licence, in lower case."""


def terms_of(name: str) -> Terms | None:
    """The terms of a hub name, or of a name at a server; None if the table has no such model."""
    return next((terms for pattern, terms in BY_NAME.items() if fnmatchcase(name.lower(), pattern)), None)
