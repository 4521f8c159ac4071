"""The one loader for model weights. It reads only safetensors and runs no code from the files.

transformers, diffusers and open_clip also accept pickles (``.bin``, ``.pt``, ``.ckpt``), which can run code
while they are read, and Python modules beside the weights. All models, tokenizers and processors are loaded
here, so that neither is ever opened (``tests/stages/test_weights.py`` checks the sources).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import load_model as fill
from transformers import dynamic_module_utils

from stages.base import Weights
from stages.models.device import default_device
from stages.models.tokenizer_files import require_words

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Suffixes of files that can run code while they are read."""
FILE = "model.safetensors"
"""The file of a folder's weights, where a folder holds one model without parts."""
_WHY = "is a pickle, which may run code as it is read"
_REFUSED = {"trust_remote_code": False}
"""Stated explicitly: otherwise transformers asks at the terminal."""


def load_model(kind: Any, weights: Weights, key: str, **options: Any) -> Any:
    """Load a model of transformers, or a pipeline of diffusers.

    Args:
        kind: the class with ``from_pretrained``.
        weights: the model's folder or hub name.
        key: its manifest key, such as ``diffusion.model``, for errors.
        options: further options of ``from_pretrained``.

    Raises:
        FileNotFoundError: there is no such model, or its weights exist only as a pickle.
        OSError: it cannot be read.
    """
    loaded = _load(kind, weights, key, use_safetensors=True, **options)
    _require_words(loaded, weights, key)
    return loaded


def load_processor(kind: Any, weights: Weights, key: str, **options: Any) -> Any:
    """Load a tokenizer, processor or configuration of transformers; otherwise as :func:`load_model`.

    Raises:
        OSError: as there; also for a tokenizer without vocabulary.
    """
    loaded = _load(kind, weights, key, **options)
    _require_words(loaded, weights, key)
    return loaded


def _require_words(loaded: Any, weights: Weights, key: str) -> None:
    """Check every tokenizer of a processor or a pipeline, or a tokenizer itself."""
    inside = [getattr(loaded, name, None) for name in ("tokenizer", "tokenizer_2")]
    for tokenizer in [loaded, *inside]:
        if hasattr(tokenizer, "all_special_tokens"):
            require_words(tokenizer, f"{key}: the tokenizer of {weights.model}")


def _load(kind: Any, weights: Weights, key: str, **options: Any) -> Any:
    try:
        with _safe(key):
            return kind.from_pretrained(weights.name, **weights.source, **_REFUSED, **options)
    except PickleRefusedError:
        raise
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        _refuse_pickles(Path(weights.name), key)
        raise _unloadable(weights, key, error) from error


class PickleRefusedError(FileNotFoundError):
    """A model's files name a pickle."""


@contextmanager
def _safe(key: str) -> Iterator[None]:
    """Refuse pickles, and ask no question at the terminal, while a library loads a model.

    An option such as ``use_safetensors`` decides only which file is looked for. The file can be an index that
    names pickles, and a configuration can name further models.
    """

    def refuse(file: Any, *args: Any, **options: Any) -> NoReturn:
        raise PickleRefusedError(f"{key}: {file} {_WHY}: convert it to safetensors, or name another model")

    load, patience = torch.load, dynamic_module_utils.TIME_OUT_REMOTE_CODE
    torch.load, dynamic_module_utils.TIME_OUT_REMOTE_CODE = refuse, 0
    try:
        yield
    finally:
        torch.load, dynamic_module_utils.TIME_OUT_REMOTE_CODE = load, patience


def _unloadable(weights: Weights, key: str, error: Exception) -> OSError:
    return OSError(f"{key}: {weights.model} cannot be loaded: {' '.join(str(error).split())[:300]}")


def fill_from_folder(module: torch.nn.Module, weights: Weights, key: str) -> None:
    """Fill a module with the tensors of ``model.safetensors`` in a folder written by ``editpairs convert``.

    Raises:
        OSError: the file cannot be read, or has another architecture.
    """
    try:
        fill(module, Path(weights.name) / "model.safetensors")
    except (OSError, SafetensorError, RuntimeError) as error:
        raise _unloadable(weights, key, error) from error


def require_files(weights: Weights, key: str, *names: str) -> Path:
    """The folder of ``weights``, which must contain the files ``names``.

    Raises:
        FileNotFoundError: a file is missing, or the weights exist only as a pickle.
    """
    folder = Path(weights.name)
    for name in names:
        if not (folder / name).exists():
            _refuse_pickles(folder, key)
            raise FileNotFoundError(f"manifest key {key}: {folder} has no {name}")
    return folder


def read_tensors(weights: Weights, key: str) -> dict[str, torch.Tensor]:
    """The tensors of ``model.safetensors`` in a folder or of a hub model.

    Raises:
        OSError: the file is missing or cannot be read, or the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        if weights.path is not None:
            return load_file(require_files(weights, key, FILE) / FILE)
        return load_file(hf_hub_download(weights.model, FILE, revision=weights.revision))
    except (OSError, SafetensorError, HFValidationError) as error:  # the hub's other errors are OSErrors
        reason = " ".join(str(error).split())[:300]
        raise OSError(f"{key}: {weights.model} cannot be loaded: {reason}") from error


def load_clip(weights: Weights, key: str) -> tuple[torch.nn.Module, Any]:
    """Load a CLIP of open_clip and its tokenizer.

    Args:
        weights: a folder in open_clip's layout (``open_clip_config.json``, ``open_clip_model.safetensors``
            and the tokenizer's files); or a name that open_clip knows, such as ``ViT-L-14``, with the tag of
            its weights as ``revision``, such as ``openai``.
        key: the manifest key, for errors.

    Raises:
        FileNotFoundError: the folder lacks its config or weights, the name or tag is unknown, or the tag has
            no safetensors.
        OSError: it cannot be loaded.
    """
    import open_clip

    model, tag = weights.name, weights.revision
    if weights.path is not None:
        folder = require_files(weights, key, "open_clip_config.json", "open_clip_model.safetensors")
        model, tag = f"local-dir:{folder}", None
    elif model not in open_clip.list_models():
        raise FileNotFoundError(f"{key}: {model!r} is neither a folder nor a model that open_clip knows")
    else:
        _fetch_safetensors(model, tag, key.removesuffix(".model"))
    try:
        with _safe(key):
            network = open_clip.create_model(model, tag, device=default_device(), require_pretrained=True)
            # A folder's own config could ask to run its code; these options override it.
            remote = _REFUSED if "hf_tokenizer_name" in open_clip.get_model_config(model)["text_cfg"] else {}
            tokenizer = open_clip.get_tokenizer(model, **remote)
    except PickleRefusedError:
        raise
    except Exception as error:  # the library raises many kinds for a config that does not fit
        raise _unloadable(weights, key, error) from error
    _require_words(tokenizer, weights, key)
    return network, tokenizer


def _fetch_safetensors(model: str, tag: str | None, section: str) -> None:
    """Download a tag's weights into the cache where open_clip looks for them, unless they are a pickle."""
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise FileNotFoundError(
            f"{section}.revision: {tag!r} is no tag of weights of {model}; open_clip has {', '.join(tags)}"
        )
    file = Path(download_pretrained(get_pretrained_cfg(model, tag)))
    if file.suffix != ".safetensors":
        raise FileNotFoundError(
            f"{section}.revision: of the tag {tag!r} of {model} open_clip has {file.name} alone, a pickle, "
            "which may run code as it is read: choose another tag, or name a folder with safetensors"
        )


def _refuse_pickles(folder: Path, key: str) -> None:
    """Raise an error if some part of a model in a folder exists only as a pickle."""
    for file in _pickles_alone(folder):
        raise FileNotFoundError(
            f"{key}: {file} {_WHY}, and no safetensors lie beside it: "
            "convert it to safetensors, or name a model that has them"
        )


def _pickles_alone(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if file.suffix in PICKLES and not any(file.parent.glob("*.safetensors")):
            yield file
