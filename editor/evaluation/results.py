"""The results of an evaluation: figures as JSON and parquet, a contact sheet, an HTML page, a table.

results.json    what was measured and how, and each figure by task with its interval
edits.parquet   a line per edit: id, group, tasks, figures; for comparing two editors edit by edit
sheet.png       input, edited picture and true result side by side
report.html     all of it to read, without any request
"""

import json
import math
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from editor.evaluation.evaluate import Evaluation, Measured
from editor.evaluation.metrics import MEANINGS
from editor.sheet import Line, draw_sheet
from pipeline.shown import DataTable
from pipeline.store.outputs import NewFolder
from pipeline.views.gallery import thumbnail
from pipeline.views.html_page import document, table, text


def write_results(folder: NewFolder, evaluation: Evaluation, about: Mapping[str, Any]) -> None:
    """Write all files; ``about`` says what was measured, as JSON."""
    summary = {
        task: {
            str(column): {"mean": _number(found.mean), "low": _number(found.low), "high": _number(found.high)}
            for column, found in zip(evaluation.columns, intervals, strict=True)
            if found.count
        }
        | {"edits": max(found.count for found in intervals)}
        for task, intervals in evaluation.summary().items()
    }
    content = {**about, "skipped": dict(evaluation.skipped), "figures": summary}
    with folder.file("results.json") as file:
        file.write(json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
    with folder.file("edits.parquet") as file:
        file.write(_parquet(evaluation))
    with folder.file("sheet.png") as file:
        file.write(draw_sheet([_line(measured) for measured in evaluation.shown], 2))
    with folder.file("report.html") as file:
        file.write(page(evaluation, about).encode("utf-8"))


def figures_table(evaluation: Evaluation) -> DataTable:
    """Means with intervals: a line per metric, a column per task."""
    summary = evaluation.summary()
    shown = DataTable()
    for name in ("", *summary):
        shown.add_column(name)
    for k, column in enumerate(evaluation.columns):
        if summary["all"][k].count:
            shown.add_row(str(column), *(intervals[k].text() for intervals in summary.values()))
    shown.add_row(Text("edits", "dim"), *(str(max(i.count for i in found)) for found in summary.values()))
    return shown


def page(evaluation: Evaluation, about: Mapping[str, Any]) -> str:
    """The HTML page."""
    summary = evaluation.summary()
    measured = [k for k, found in enumerate(summary["all"]) if found.count]
    lines = [
        [task, max(found.count for found in intervals), *(intervals[k].text() for k in measured)]
        for task, intervals in summary.items()
    ]
    head = ["task", "edits", *(str(evaluation.columns[k]) for k in measured)]
    meanings = sorted({evaluation.columns[k].metric for k in measured}, key=list(MEANINGS).index)
    lost = [[reason, count] for reason, count in evaluation.skipped.items()]
    facts = [[key, json.dumps(value) if isinstance(value, dict) else value] for key, value in about.items()]
    cards = "".join(map(_card, evaluation.shown))
    sections = [
        f"<h1>{text(about['editor'])}</h1><p>{text(about['data'])}: {len(evaluation.ids)} edits. Means with "
        "95 % intervals by bootstrap over input pictures.</p>",
        "<h2>Figures by task</h2>" + table("Figures by task", head, lines),
        "<h2>Metrics</h2>" + table("Metrics", ["metric", "meaning"], [[m, MEANINGS[m]] for m in meanings]),
        "<h2>Edits not measured</h2>"
        + (table("Edits not measured", ["reason", "edits"], lost) if lost else "<p>None.</p>"),
        "<h2>Settings</h2>" + table("Settings", ["", ""], facts),
        f'<h2>The first edits of each task</h2><div id="gallery">{cards}</div>',
    ]
    return document(f"{about['editor']}: evaluation", sections)


def _card(measured: Measured) -> str:
    edit = measured.edit
    pictures = [("input", edit.before), ("edited", measured.picture), ("true result", edit.after)]
    cells = "".join(
        f'<div><img loading="lazy" alt="{name}" src="{thumbnail(picture)}"><small>{name}</small></div>'
        for name, picture in pictures
        if picture is not None
    )
    captions = " → ".join(filter(None, (edit.before_caption, edit.after_caption)))
    return (
        f'<div class="row"><div class="pictures">{cells}</div>'
        f'<p class="instruction"><bdi>{text(edit.instruction)}</bdi></p>'
        f'<p class="captions"><bdi>{text(captions)}</bdi></p>'
        f'<p class="captions"><bdi>{text(measured.choice.told())}</bdi> · <bdi>{text(edit.id)}</bdi></p>'
        "</div>"
    )


def _line(measured: Measured) -> Line:
    pictures = [(measured.edit.before, "input"), (measured.picture, measured.choice.task)]
    if measured.edit.after is not None:
        pictures.append((measured.edit.after, "true result"))
    return Line(pictures, measured.edit.instruction)


def _parquet(evaluation: Evaluation) -> bytes:
    columns: dict[str, Any] = {
        "id": evaluation.ids,
        "group": evaluation.groups,
        "task": evaluation.tasks,
        "chosen_task": evaluation.chosen,
    }
    for k, column in enumerate(evaluation.columns):
        columns[str(column)] = [_number(values[k]) for values in evaluation.values]
    schema = pa.schema([(name, pa.string()) for name in list(columns)[:4]])
    for column in evaluation.columns:
        schema = schema.append(pa.field(str(column), pa.float64()))
    content = BytesIO()
    pq.write_table(pa.table(columns, schema), content, compression="zstd")
    return content.getvalue()


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
