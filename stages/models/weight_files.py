"""Checks of a model's files without loading the model: would a loader accept them?

Only headers and JSON are read, no tensors, and no model library is imported. The driver can therefore check a
run in milliseconds. For a hub name, only its form is checked.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.base import Weights

Check = Callable[[Path], None]
"""Raises ValueError if a file or folder of weights is unusable."""


def problems_of(key: str, weights: Weights, check: Check) -> Iterator[str]:
    """Problems with the model under a manifest key. A missing path is reported elsewhere."""
    path = weights.path
    if path is None:
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(weights.model)
        except HFValidationError:
            yield f"{key}.model: {weights.model!r} is neither a path nor a hub name, such as org/name"
    elif path.exists():
        try:
            check(path)
        except ValueError as error:
            yield f"{key}.model: {error}"
        except OSError as error:
            yield f"{key}.model: {error.filename or path} cannot be read: {error.strerror or error}"


def check_tensors(file: Path, prefixes: Iterable[str] = ()) -> list[str]:
    """Check the header and length of a safetensors file.

    Returns:
        The names of its tensors. For each of ``prefixes`` there is at least one.

    Raises:
        ValueError: the file is damaged, or holds another model.
    """
    names = list(tensor_shapes(file))
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"{file} is of another model: it has no tensors {prefix}*")
    return names


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a safetensors file, from its header.

    Raises:
        ValueError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}")
    try:
        with safe_open(file, framework="np") as tensors:
            names = list(tensors.keys())
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged, or not a safetensors file: {error}") from error


def folder_of(weights: Weights) -> Path | None:
    """The folder of weights on this machine: a path, or the hub's cache; None if they are not here."""
    if weights.path is not None:
        return weights.path if weights.path.exists() else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(weights.model, revision=weights.revision, local_files_only=True))
    except (OSError, ValueError, HfHubHTTPError):
        return None


def parameters_in(folder: Path, variant: str | None = None) -> dict[str, int]:
    """The number of parameters in the safetensors files of a folder, by the data type they are stored in.

    Files of another variant than asked for are left out, where the asked one exists beside them.
    """
    from safetensors import safe_open

    counts: dict[str, int] = {}
    for file in [folder] if folder.is_file() else sorted(folder.rglob("*.safetensors")):
        if variant is None and _varied(file):
            continue
        if variant is not None and not _varied(file) and any(file.parent.glob(f"*.{variant}*.safetensors")):
            continue
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dict
                slices = tensors.get_slice(name)
                kind = slices.get_dtype()
                counts[kind] = counts.get(kind, 0) + math.prod(slices.get_shape())
    return counts


def _varied(file: Path) -> bool:
    """Whether a file's name has a variant: ``model.fp16.safetensors``, and not ``model-00001-of-2``."""
    return "." in file.name.removesuffix(".safetensors")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: the file is missing, or does not hold a JSON object.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{file.parent} has no {file.name}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object")
    return content


def is_of_transformers(found: Mapping[str, Any]) -> bool:
    """Whether a section's ``model`` is a hub name or a folder of transformers.

    A folder of ``editpairs convert`` is none: its ``config.json`` names no ``model_type``.

    Args:
        found: the section's keys that were read so far.
    """
    path = Weights(model=found["model"]).path if "model" in found else None
    try:
        return path is None or "model_type" in read_json(path / "config.json")
    except (OSError, ValueError):
        return False


def check_saved_model(folder: Path, name: str = "model", variant: str | None = None) -> None:
    """Check files written by ``save_pretrained``: ``<name>.safetensors``, or several files and an index."""
    infix = "" if variant is None else f".{variant}"
    index = folder / f"{name}.safetensors.index{infix}.json"
    if not index.is_file():
        check_tensors(folder / f"{name}{infix}.safetensors")
        return
    pieces = read_json(index).get("weight_map")
    if not isinstance(pieces, dict) or not pieces:
        raise ValueError(f"{index} has no weight_map")
    for piece in sorted(set(map(str, pieces.values()))):
        check_tensors(folder / piece)


def of_transformers(kind: str, classes: tuple[str, ...], *beside: Check) -> Check:
    """Make a check for a folder of transformers.

    Args:
        kind: the expected kind of model, for errors.
        classes: prefixes or suffixes of architecture names. The config must name a matching architecture.
        beside: checks of the folder's tokenizer or preprocessor.
    """

    def check(folder: Path) -> None:
        config = read_json(folder / "config.json")
        named = config.get("architectures")
        if not isinstance(config.get("model_type"), str):
            raise ValueError(f"{folder / 'config.json'} names no model_type: it is no model of transformers")
        if isinstance(named, list) and not any(
            str(n).startswith(classes) or str(n).endswith(classes) for n in named
        ):
            raise ValueError(f"{folder} holds {', '.join(map(str, named))}, which is not {kind}")
        check_saved_model(folder)
        for check_files in beside:
            check_files(folder)

    return check


def check_preprocessor(folder: Path) -> None:
    """Check the configuration of a folder's image processor."""
    there = [folder / name for name in _PREPROCESSORS if (folder / name).exists()]
    if not there:
        raise ValueError(f"{folder} has no {' or '.join(_PREPROCESSORS)}")
    for file in there:
        read_json(file)


_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")


def of_parts(config_key: str, prefixes: tuple[str, ...]) -> Check:
    """Make a check for a folder written by ``editpairs convert``.

    Args:
        config_key: a key that ``config.json`` must have.
        prefixes: required prefixes of tensor names.
    """

    def check(folder: Path) -> None:
        config = read_json(folder / "config.json")
        if config_key not in config:
            raise ValueError(
                f"{folder / 'config.json'} has no {config_key!r}: make the folder with editpairs convert"
            )
        check_tensors(folder / "model.safetensors", prefixes)

    return check
