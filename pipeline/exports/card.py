"""The dataset card of an export: the run's own, with thresholds, licences and known limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.exports import SIDES, Export
from pipeline.lockfile import read_lock
from pipeline.publish import CARD
from stages.filter import FilterConfig, resolve_bounds

LIMITS = """
- Synthetic: captions, pictures, masks and targets were made by models; no person checked a row.
- Filtered by thresholds on CLIP and a detector, which have blind spots and biases of their own.
- What the models cannot draw, find or name is missing; what they draw often is there too often.
- Licences and terms of use of the models and captions apply to what was made with them.
"""


def write_card(export: Export) -> None:
    """``README.md``: its front matter tells ``datasets`` which files are which side."""
    there = [side for side in SIDES if any(export.folder.rglob(f"{side}-*"))]
    header: dict[str, Any] = {"pretty_name": export.manifest.name, "task_categories": ["image-to-image"]}
    if any(export.folder.rglob("*.parquet")):
        paths = [{"split": side, "path": f"data/{side}-*.parquet"} for side in there]
        header["configs"] = [{"config_name": "default", "data_files": paths}]
    card = (export.state.folder.root / CARD).read_text(encoding="utf-8")
    body = card.split("---\n", 2)[-1].strip()
    text = (
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n{body}\n\n"
        f"Split by the hash of the caption: {export.test_share:.0%} of the captions are in `test`.\n\n"
        f"## Thresholds\n\n{_thresholds(export)}\n\n## Licences\n\n{_licences(export)}\n\n"
        f"## Known limits\n{LIMITS}"
    )
    (export.folder / "README.md").write_text(text, encoding="utf-8")


def _thresholds(export: Export) -> str:
    config = export.manifest.section("filter")
    assert isinstance(config, FilterConfig)
    lines = ["| task | bounds |", "|---|---|"]
    for name, task in export.tasks.items():
        bounds = [
            f"{metric} {sign} {limit:g}"
            for metric, bound in resolve_bounds(task, config).items()
            for sign, limit in ((">=", bound.min), ("<=", bound.max))
            if limit is not None
        ]
        lines.append(f"| {name} | {', '.join(bounds)} |")
    return "\n".join(lines)


def _licences(export: Export) -> str:
    models = sorted(set(_models(read_lock(export.state.folder.lock).get("manifest", {}))))
    return "\n".join(["| model | licence |", "|---|---|", *(f"| `{m}` | {licence_of(m)} |" for m in models)])


def _models(value: Any) -> list[str]:
    """Every ``model`` that a manifest names."""
    if not isinstance(value, Mapping):
        return []
    own = [value["model"]] if isinstance(value.get("model"), str) else []
    return own + [model for inner in value.values() for model in _models(inner)]


def licence_of(model: str) -> str:
    """What the card in a model's folder, or in the one that holds it, says; ``not stated`` otherwise."""
    for folder in (Path(model), Path(model).parent):
        card = folder / "README.md"
        if card.is_file():
            parts = card.read_text(encoding="utf-8", errors="replace").split("---\n")
            header = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0].strip() else None
            if isinstance(header, dict) and isinstance(header.get("license"), str):
                return header["license"]
    return "not stated"
