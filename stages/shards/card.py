"""The dataset card: ``README.md`` with a front matter that the ``datasets`` package reads.

Names of runs, tasks and models are of others; they are shown as they are, and end neither a table's cell
nor the front matter.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How a picture is published; ``datasets`` shows it, pandas gives its bytes."""

Columns = Mapping[str, tuple[pa.DataType, str]]
"""Type and meaning of columns by name."""


def dataset_card(header: Mapping[str, Any], *sections: str) -> str:
    """A card of a front matter and sections in Markdown."""
    return f"---\n{yaml.safe_dump(dict(header), sort_keys=False)}---\n\n" + "\n\n".join(sections) + "\n"


def front_matter(name: str, data_files: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """What ``datasets`` is told.

    Args:
        name: of the run.
        data_files: a pattern by split, or several, relative to the card.
    """
    files = [{"split": split, "path": pattern} for split, pattern in data_files.items()]
    return {
        "pretty_name": name,
        "task_categories": ["image-to-image"],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def provenance(summary: Mapping[str, Any], tasks: Mapping[str, int]) -> list[str]:
    """What the rows are, and of which tasks and models.

    Args:
        summary: ``name``, ``seed``, ``planned`` and ``published`` (rows) and ``models`` (identity by
            manifest key).
        tasks: rows by task.
    """
    return [
        f"# {plain(summary['name'])}",
        f"Synthetic image edits: {summary['published']} pairs, kept of {summary['planned']} planned "
        f"(seed {summary['seed']}). Captions, pictures\nand masks were made by models and filtered by "
        "thresholds; no row was checked by a person.",
        table(("task", "pairs:"), [(plain(task), str(rows)) for task, rows in sorted(tasks.items())]),
        table(("model", "identity"), [(plain(key), code(model)) for key, model in summary["models"].items()]),
    ]


def columns_table(columns: Columns) -> str:
    """Each column's type and meaning."""
    lines = [
        (code(name), "image" if dtype == PICTURE else plain(str(dtype)), plain(meaning))
        for name, (dtype, meaning) in columns.items()
    ]
    return table(("column", "type", "meaning"), lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; a head that ends in ``:`` is of numbers."""
    rule = "|".join("---:" if name.endswith(":") else "---" for name in head)
    names = " | ".join(name.removesuffix(":") for name in head)
    return "\n".join([f"| {names} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line."""
    return re.sub(r"([\\`*\[\]<|&~$])", r"\\\1", _one_line(text))


def code(text: str) -> str:
    """A text as code within a line; it may hold backticks, and a table's cell keeps it whole."""
    line = _one_line(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line[:1] == "`" or line[-1:] == "`" or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def features(schema: pa.Schema) -> list[dict[str, Any]]:
    """A schema as the front matter's ``dataset_info.features`` states it."""
    return [{"name": field.name, **_feature(field.type)} for field in schema]


def _feature(dtype: pa.DataType) -> dict[str, Any]:
    if dtype == PICTURE:
        return {"dtype": "image"}
    if pa.types.is_struct(dtype):
        return {"struct": features(pa.schema(list(dtype)))}
    if pa.types.is_list(dtype):
        inner = _feature(dtype.value_type)
        return {"list": inner.get("dtype", inner)}
    return {"dtype": {"float": "float32"}.get(str(dtype), str(dtype))}


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
