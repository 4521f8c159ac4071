"""Checks of the files that open_clip would load, without loading them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stages.models.tokenizer_files import check_tokenizer
from stages.models.weight_files import check_tensors, problems_of, read_json

if TYPE_CHECKING:
    from stages.models.config import ClipConfig

_ASK = """
import importlib, importlib.util, json, sys, types
package = types.ModuleType("tables")
package.__path__ = importlib.util.find_spec("open_clip").submodule_search_locations
sys.modules |= {"tables": package, "safetensors.torch": None}
print(json.dumps(importlib.import_module("tables.pretrained").list_pretrained_tags_by_model(sys.argv[1])))
"""
"""Prints open_clip's table of weights. A separate process, because importing open_clip imports torch."""


def clip_problems(config: "ClipConfig") -> Iterator[str]:
    """Problems in the manifest's section ``clip``."""
    if config.path is not None:
        yield from problems_of("clip", config, _check_folder)
        return
    tags = _tags(config.model)
    if tags == []:
        yield f"clip.model: {config.model!r} is neither a folder nor a model that open_clip has weights of"
    elif tags and (config.revision or "").lower().replace("-", "_") not in tags:
        said = "is not set" if config.revision is None else f"{config.revision!r} is none of its tags"
        yield f"clip.revision: {said}: which weights of {config.model}? One of {', '.join(tags)}"


@lru_cache
def _tags(model: str) -> list[str] | None:
    """The tags of a model's weights; None if this version of open_clip keeps them elsewhere."""
    asked = subprocess.run([sys.executable, "-c", _ASK, model], capture_output=True, text=True)
    return None if asked.returncode else json.loads(asked.stdout.splitlines()[-1])


def _check_folder(folder: Path) -> None:
    config = read_json(folder / "open_clip_config.json").get("model_cfg")
    if not isinstance(config, dict):
        raise ValueError(f"{folder / 'open_clip_config.json'} has no model_cfg")
    text = config.get("text_cfg")
    if isinstance(text, dict) and text.get("hf_tokenizer_name"):  # otherwise open_clip has its own tokenizer
        check_tokenizer(folder, text.get("vocab_size"))
    check_tensors(folder / "open_clip_model.safetensors", ("visual.",))
