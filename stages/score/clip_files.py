"""What open_clip would load, without loading it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stages.weight_files import check_tensors, problems_of, read_json

if TYPE_CHECKING:
    from stages.score.stage import ClipConfig

_ASK = (
    "import json, sys, open_clip; name = sys.argv[1]; "
    "print(json.dumps([name in open_clip.list_models(), open_clip.list_pretrained_tags_by_model(name)]))"
)
"""In a process of its own, for open_clip imports torch: seconds, once for a name, and none for a folder."""


def clip_problems(config: "ClipConfig") -> Iterator[str]:
    """What would stop the section ``clip``."""
    if config.path is not None:
        yield from problems_of("clip", config, _check_folder)
        return
    answer = _asked(config.model)
    if isinstance(answer, str):
        yield f"clip.model: open_clip cannot be imported: {answer}"
        return
    known, tags = answer
    if not known:
        yield f"clip.model: {config.model!r} is neither a folder nor a model that open_clip knows"
    elif config.revision is None or config.revision.lower().replace("-", "_") not in tags:
        said = "is not set" if config.revision is None else f"{config.revision!r} is none of its tags"
        yield f"clip.revision: {said}: which weights of {config.model}? One of {', '.join(tags)}"


@lru_cache
def _asked(model: str) -> tuple[bool, list[str]] | str:
    """Whether open_clip knows a model, and the tags of its weights; or why it cannot be asked."""
    asked = subprocess.run([sys.executable, "-c", _ASK, model], capture_output=True, text=True)
    if asked.returncode:
        return (asked.stderr.strip() or "it ended without a word").splitlines()[-1]
    known, tags = json.loads(asked.stdout.splitlines()[-1])
    return known, tags


def _check_folder(folder: Path) -> None:
    if not isinstance(read_json(folder / "open_clip_config.json").get("model_cfg"), dict):
        raise ValueError(f"{folder / 'open_clip_config.json'} has no model_cfg")
    check_tensors(folder / "open_clip_model.safetensors", ("visual.",))
