"""The dataset card: ``README.md`` with a front matter for the ``datasets`` package.

Names of runs, tasks and models are untrusted text. They are escaped, so that they cannot break a table or the
front matter.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A published picture. ``datasets`` shows it as a picture, pandas gives its bytes."""

Columns = Mapping[str, tuple[pa.DataType, str]]
"""Type and meaning of columns by name."""


_POWERS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
SIZES = ("n<1K", *(f"{low}<n<{high}" for low, high in pairwise(_POWERS)), "n>1T")
"""The Hub's ``size_categories``, in order."""


_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
"""Characters that end a line in YAML and that huggingface_hub's writer does not escape."""


def dataset_card(header: Mapping[str, Any], *sections: str) -> str:
    """A card from a front matter and sections in Markdown. The Hub's own library writes the front matter."""
    from huggingface_hub import DatasetCard, DatasetCardData

    body = "\n\n".join(sections)
    return str(DatasetCard(f"---\n{DatasetCardData(**header).to_yaml()}\n---\n\n{body}\n"))


def front_matter(
    name: str,
    data_files: Mapping[str, str | Sequence[str]],
    rows: int,
    schema: pa.Schema,
    licence: str = "other",
) -> dict[str, Any]:
    """The front matter for the Hub and for ``datasets``.

    Args:
        name: the run's name.
        data_files: one pattern or several by split, relative to the card.
        rows: number of rows in all splits.
        schema: of a row as ``datasets`` reads it.
        licence: an identifier that the Hub knows; ``other`` if nobody has chosen one.
    """
    files = [{"split": split, "path": pattern} for split, pattern in data_files.items()]
    return {
        "pretty_name": _LINE_ENDS.sub(" ", name),
        "license": licence,
        "size_categories": [size_category(rows)],
        "task_categories": ["image-to-image"],
        "annotations_creators": ["machine-generated"],
        "tags": ["image-editing", "instruction-based-image-editing", "synthetic", "editpairs"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {"features": features(schema)},
    }


def size_category(rows: int) -> str:
    """The Hub's category for a number of rows."""
    return SIZES[min(max(len(str(rows)) - 3, 0), len(SIZES) - 1)]


def provenance(summary: Mapping[str, Any], tasks: Mapping[str, int]) -> list[str]:
    """A paragraph and tables: how many rows, from which tasks and models.

    Args:
        summary: ``name``, ``seed``, ``planned`` and ``published`` (rows) and ``models`` (identity by
            manifest key); ``pictures`` if they are not drawn, ``captions`` if a model described these.
        tasks: rows by task.
    """
    made = "Captions, pictures\nand masks were made by models"
    if "pictures" in summary:
        came = "were given" if "captions" in summary else "came with the captions"
        written = "missing captions, " if "captions" in summary else ""
        made = f"The inputs are pictures\nthat {came}; {written}instructions, masks and targets "
        made += "were made by models"
    return [
        f"# {plain(summary['name'])}",
        f"Synthetic image edits: {summary['published']} pairs, kept of {summary['planned']} planned "
        f"(seed {summary['seed']}). {made} and filtered by thresholds; no row was checked by a person.",
        table(("task", "pairs:"), [(plain(task), str(rows)) for task, rows in sorted(tasks.items())]),
        table(("model", "identity"), [(plain(key), code(model)) for key, model in summary["models"].items()]),
    ]


def audit_section(summary: Mapping[str, Any]) -> list[str]:
    """What the pairs share with evaluation sets; no section if the run was not audited.

    Args:
        summary: ``audit`` is optional: ``sets`` (counts by set), ``pairs`` and ``bits``, and whether it is
            ``current``.
    """
    if "audit" not in summary:
        return []
    audit = summary["audit"]
    lines = ["## Evaluation sets", ""]
    for each in audit["sets"]:
        compared = [
            f"{each[kind]} {kind}" if each[f"{kind[:-1]}_columns"] else f"no {kind}"
            for kind in ("captions", "pictures")
        ]
        broken = f"; {each['broken']} pictures could not be read" if each["broken"] else ""
        lines.append(
            f"- audited against {plain(each['name'])}: {each['shared_captions']} captions, "
            f"{each['shared_pictures']} pictures shared, in {each['pairs']} of {audit['pairs']} pairs "
            f"(compared with {' and '.join(compared)}{broken})"
        )
    how = f"Captions are compared word by word, pictures by pHash (at most {audit['bits']} of 64 bits)."
    old = "" if audit["current"] else " The pairs have changed since the audit: give it again."
    return ["\n".join([*lines, "", how + old])]


def columns_table(columns: Columns) -> str:
    """A table with the type and meaning of each column."""
    lines = [
        (code(name), "image" if dtype == PICTURE else plain(str(dtype)), plain(meaning))
        for name, (dtype, meaning) in columns.items()
    ]
    return table(("column", "type", "meaning"), lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table from cells in Markdown. A heading that ends with ``:`` marks a column of numbers."""
    rule = "|".join("---:" if name.endswith(":") else "---" for name in head)
    names = " | ".join(name.removesuffix(":") for name in head)
    return "\n".join([f"| {names} |", f"|{rule}|", *(f"| {' | '.join(line)} |" for line in lines)])


def plain(text: str) -> str:
    """Escape a text for Markdown, on one line."""
    return re.sub(r"([\\`*\[\]<|&~$])", r"\\\1", _one_line(text))


def code(text: str) -> str:
    """A text as inline code. It may contain backticks, and stays inside a table cell."""
    # A table ends its cell at a pipe with an even number of backslashes before it. It takes one of them away.
    line = re.sub(r"(\\*)\|", lambda found: "\\" * ((len(found[1]) + 1) | 1) + "|", _one_line(text))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line[:1] == "`" or line[-1:] == "`" or not line else ""
    return f"{fence}{space}{line}{space}{fence}"


def features(schema: pa.Schema) -> list[dict[str, Any]]:
    """A schema in the form of the front matter's ``dataset_info.features``."""
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
