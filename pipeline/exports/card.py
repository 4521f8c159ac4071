"""The dataset card of an export: number of rows, thresholds, licences and known limits."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml

from pipeline.engine.publish import audit_summary, pictures_summary
from pipeline.exports import SIDES, Export
from pipeline.manifest.fingerprint import models_of
from pipeline.manifest.lockfile import read_lock
from stages.base import Weights
from stages.filter.stage import unmeasured
from stages.shards.card import (
    Columns,
    audit_section,
    code,
    columns_table,
    dataset_card,
    front_matter,
    plain,
    provenance,
    table,
)

MOST_OF_A_CARD = 100_000
"""Most characters read from a model's card."""
LIMITS = """## Known limits

- {made} were made by models; no person checked a row.
- Filtered by thresholds on CLIP and a detector, which have blind spots and biases of their own.
- Content that the models cannot draw, find or name is missing; content they draw often is over-represented.
- Licences and terms of use of the models and {given} apply to the pairs as well."""
_DRAWN = {"made": "Synthetic: captions, pictures, masks and targets", "given": "captions"}
_GIVEN = {
    "made": "Inputs came with the captions, cut and resized; instructions, masks and targets",
    "given": "of the captions and their pictures",
}
_DESCRIBED = {
    "made": "Inputs were given, cut and resized; missing captions, instructions, masks and targets",
    "given": "of the pictures and the given captions",
}


_LOADING = """import os
from datasets import load_dataset

pairs = load_dataset(os.getcwd(), split="{{side}}")  # in this folder; or the name of a repository on the Hub
print(pairs[0]["{instruction}"], pairs[0]["{before}"].size, pairs[0]["{after}"].size)"""


def example(instruction: str, before: str, after: str) -> str:
    """A snippet that loads the pairs with ``datasets`` and reads these columns of the first."""
    return _LOADING.format(instruction=instruction, before=before, after=after)


def write_card(export: Export, columns: Columns, schema: pa.Schema, snippet: str) -> None:
    """Write ``README.md``. Its front matter tells ``datasets`` which files are train and which are test.

    Args:
        columns: the columns of the rows, as the card lists them.
        schema: of a row as ``datasets`` reads it.
        snippet: Python code that reads a pair, run in the export's folder. ``{side}`` stands for a split.
    """
    data_files: dict[str, str] = {}
    for side in SIDES:
        names = [name for name in export.folder.names if name.rpartition("/")[2].startswith(f"{side}-")]
        if names:
            folder, _, name = names[0].rpartition("/")
            data_files[side] = f"{folder + '/' if folder else ''}{side}-*.{name.rpartition('.')[2]}"
    tasks: Counter[str] = Counter()
    for (task, _), rows in export.written.items():
        tasks[task] += rows
    summary = _summary(export)
    text = dataset_card(
        front_matter(export.manifest.name, data_files, tasks.total(), schema, export.licence),
        *provenance(summary, tasks),
        *audit_section(summary),
        f"```python\n{snippet.format(side=next(iter(data_files), 'train'))}\n```",
        columns_table(columns),
        "A score that does not apply to a task is null.",
        f"Split by the hash of the caption: {export.test_share:.0%} of the captions are in `test`.",
        "## Thresholds",
        _thresholds(export),
        "## Licences",
        "Whoever publishes the pairs chooses their licence, within those of the models and of the captions.",
        _licences(export),
        LIMITS.format(**_limits(summary)),
    )
    with export.folder.file("README.md") as file:
        file.write(text.encode("utf-8"))


def _limits(summary: Mapping[str, Any]) -> Mapping[str, str]:
    if "captions" in summary:
        return _DESCRIBED
    return _GIVEN if "pictures" in summary else _DRAWN


def _summary(export: Export) -> dict[str, Any]:
    known = read_lock(export.state.folder.lock).get("identities", {})
    identities = [known.get(step.fingerprint, {}) for step in export.state.steps.values()]
    return {
        "name": export.manifest.name,
        "seed": export.manifest.seed,
        "planned": export.state.plan.rows,
        "published": export.written.total(),
        "models": models_of(identities),
        **pictures_summary(export.state),
        **audit_summary(export.state),
    }


def _thresholds(export: Export) -> str:
    unknown = unmeasured(export.manifest.sections)
    lines = []
    for name, by_metric in export.bounds.items():
        bounds = [
            f"{metric} {sign} {limit:g}"
            for metric, bound in by_metric.items()
            if metric not in unknown
            for sign, limit in ((">=", bound.min), ("<=", bound.max))
            if limit is not None
        ]
        if name in export.models:
            bounds.append(f"calibrated probability of being right >= {export.models[name].threshold:g}")
        lines.append((plain(name), ", ".join(bounds)))
    return table(("task", "bounds"), lines)


def _licences(export: Export) -> str:
    models = sorted(set(_models(read_lock(export.state.folder.lock).get("manifest", {}))))
    return table(("model", "licence"), [(code(model), plain(licence_of(model))) for model in models])


def _models(value: Any) -> list[str]:
    """Every ``model`` named in a manifest."""
    if not isinstance(value, Mapping):
        return []
    own = [value["model"]] if isinstance(value.get("model"), str) else []
    return own + [model for inner in value.values() for model in _models(inner)]


def licence_of(model: str) -> str:
    """The licence stated by the card in the model's folder or its parent; ``not stated`` if there is none."""
    path = Weights(model=model).path
    for folder in [] if path is None else [path, path.parent]:
        try:
            with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
                parts = file.read(MOST_OF_A_CARD).split("---\n")
            header = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0].strip() else None
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, yaml.YAMLError, RecursionError):  # ValueError: an impossible date
            return "its card cannot be read"
        if isinstance(header, dict) and isinstance(header.get("license"), str):
            return header["license"]
    return "not stated"
