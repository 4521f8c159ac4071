"""``editpairs report``: one self-contained HTML file about a run, to read and to share.

Captions and answers of the gallery are embedded as JSON that cannot close the script element, and shown only
with ``textContent``.
"""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np

from pipeline.engine.ledger import StageCount, count_run, published
from pipeline.engine.state import RunState
from pipeline.manifest.lockfile import read_lock
from pipeline.shown import brief, shown_lines
from pipeline.store import events
from pipeline.views.gallery import Shown, choose_rows, read_shown
from pipeline.views.html_page import as_json, document, table, text
from pipeline.views.outcomes import Outcome, sample_parts, survey
from pipeline.views.pruned import pruned_lines
from pipeline.views.rounds import HEAD, count_rounds, lines_of
from stages.filter.model import Models
from stages.tasks import Bounds, Task

BINS = 24
WIDTH, HEIGHT = 240, 80
"""Size of a histogram in pixels."""
_SHOWN_PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "pyarrow", "ray")


def report_page(
    state: RunState,
    tasks: Mapping[str, Task],
    bounds: Mapping[str, Mapping[str, Bounds]],
    models: Models,
    rows: int,
    seed: int,
) -> tuple[str, int]:
    """The page, and the number of rows in its gallery.

    Funnel and tables count all rows, from the footers. Histograms and gallery use the rows of
    ``sample_parts``.

    Args:
        tasks: the run's tasks.
        bounds: the filter's bounds by task and metric.
        models: of a calibrated filter, by task.
        rows: the largest number of rows in the gallery.
        seed: draws the rows.
    """
    found = survey(state, sample_parts(state, rows, seed), models)
    chosen = choose_rows(found, bounds, rows, seed)
    gallery: list[Shown] = []
    for part in sorted({row.part for row in chosen}):
        in_part = [row for row in chosen if row.part == part]
        gallery += read_shown(state, tasks, bounds, part, in_part, models)
    return page(state, bounds, found, gallery), len(gallery)


def page(
    state: RunState,
    bounds: Mapping[str, Mapping[str, Bounds]],
    found: Sequence[Outcome],
    gallery: Sequence[Shown],
) -> str:
    folder = files("pipeline.views") / "html"
    script = (folder / "report.js").read_text(encoding="utf-8")
    counts, lock = count_run(state), read_lock(state.folder.lock)
    name = lock["manifest"]["name"]
    sections = [
        f"<h1>{text(name)}</h1><p>{text(state.folder.root)}: {state.plan.captions} captions, "
        f"{state.plan.rows} planned edits, {published(state, counts)} pairs</p>",
        *(f"<p>{text(line)}</p>" for line in pruned_lines(state)),
        "<h2>Funnel</h2>" + _funnel(counts),
        "<h2>Yield by task</h2>" + _yield(state, counts),
        *_rounds(state, counts),
        "<h2>Why not</h2>" + _reasons(counts),
        "<h2>Scores and thresholds</h2>" + _sampled(state, found) + _histograms(found, bounds),
        "<h2>Time</h2>" + _time(state),
        "<h2>Settings and versions</h2>" + _settings(lock),
        '<h2>Gallery</h2><form id="filters" aria-label="Which rows are shown"></form>'
        '<p id="count" aria-live="polite"></p><div id="gallery"></div>'
        '<button id="more" type="button">more</button>',
    ]
    rows = as_json([asdict(row) for row in gallery])
    return document(name, sections, f'<script type="application/json" id="rows">{rows}</script>', script)


def _funnel(counts: Sequence[StageCount]) -> str:
    """One bar per stage: the shares of planned rows that are kept, rejected, failed and pending."""
    planned = max(1, counts[0].given.total())
    lines = []
    for count in counts:
        numbers = {kind: getattr(count, kind).total() for kind in ("kept", "rejected", "failed", "pending")}
        bars = "".join(
            f'<span class="{kind}" style="width:{100 * rows / planned:.2f}%"></span>'
            for kind, rows in numbers.items()
        )
        summary = ", ".join(f"{kind} {rows}" for kind, rows in numbers.items() if rows)
        lines.append(
            f'<div class="stage"><b>{text(count.name)}</b><div class="bar" aria-hidden="true">{bars}</div>'
            f"<small>{summary}</small></div>"
        )
    return "".join(lines)


def _yield(state: RunState, counts: Sequence[StageCount]) -> str:
    """A table by planned task: rows kept by each stage, and pairs over all turns."""
    publishing = [count for count in counts if state.steps[count.name].publishes]
    rows = []
    for task, planned in sorted(counts[0].given.items()):
        pairs = sum(count.kept[task] for count in publishing)
        rows.append(
            [
                task,
                planned,
                *(count.kept[task] for count in counts),
                f"{pairs} ({pairs / max(1, planned):.0%})",
            ]
        )
    head = ["task", "planned", *(count.name for count in counts), "pairs"]
    return table("Yield by task", head, rows)


def _rounds(state: RunState, counts: Sequence[StageCount]) -> Iterator[str]:
    """A table of the rounds, if there are several."""
    if rounds := count_rounds(state, counts, events.spent(state.folder.events)):
        yield "<h2>Rounds</h2>" + table("Rounds", HEAD, lines_of(rounds))


def _reasons(counts: Sequence[StageCount]) -> str:
    rows = [
        [count.name, status, brief(reason), number]
        for count in counts
        for (status, reason), number in sorted(count.reasons.items(), key=lambda item: -item[1])[:20]
    ]
    return (
        table("Why not", ["stage", "status", "reason", "rows"], rows) if rows else "<p>Nothing was lost.</p>"
    )


def _sampled(state: RunState, found: Sequence[Outcome]) -> str:
    """A note about the sampled rows, if histograms and gallery do not use the whole run."""
    rows = sum(row.turn == 1 for row in found)
    if rows == state.plan.rows:
        return ""
    parts = len({row.part for row in found})
    return (
        f"<p>Sample: {rows} rows, all rows of {parts} of {state.plan.parts} parts. The seed draws the parts "
        "from those that have passed the most stages. Histograms and gallery use the sample; the tables "
        "count all rows.</p>"
    )


def _histograms(found: Sequence[Outcome], bounds: Mapping[str, Mapping[str, Bounds]]) -> str:
    """One histogram per metric over all scored rows. Vertical lines mark each task's bounds."""
    values: dict[str, list[float]] = {}
    for row in found:
        for metric, value in row.scores.items():
            values.setdefault(metric, []).append(value)
    figures = []
    for metric, numbers in values.items():
        limits = {
            (limit, side)
            for by_metric in bounds.values()
            if metric in by_metric
            for limit, side in ((by_metric[metric].min, "min"), (by_metric[metric].max, "max"))
            if limit is not None
        }
        picture = _histogram(metric, numbers, sorted(limits))
        figures.append(f"<figure>{picture}<figcaption>{text(metric)}</figcaption></figure>")
    return f'<div class="figures">{"".join(figures)}</div>' if figures else "<p>No scores yet.</p>"


def _histogram(metric: str, numbers: Sequence[float], limits: Sequence[tuple[float, str]]) -> str:
    near = [limit for limit, _ in limits if min(numbers) - 1 < limit < max(numbers) + 1]
    low, high = min([*numbers, *near]), max([*numbers, *near])
    span = (high - low) or 1.0
    heights, _ = np.histogram(numbers, BINS, (low, low + span))
    bars, lines = [], []
    for k, height in enumerate(heights):
        x, tall = WIDTH * k / BINS, HEIGHT * height / heights.max()
        size = f'width="{WIDTH / BINS - 1:.1f}" height="{tall:.1f}"'
        bars.append(f'<rect x="{x:.1f}" y="{HEIGHT - tall:.1f}" {size}/>')
    for limit, side in limits:
        if limit in near:
            x = WIDTH * (limit - low) / span
            ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}"'
            lines.append(f'<line class="{side}" {ends}><title>{side} {limit:g}</title></line>')
    scale = (
        f'<text x="0" y="{HEIGHT + 14}">{low:.3g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">{low + span:.3g}</text>'
    )
    bounds = ", ".join(f"{side} {limit:g}" for limit, side in limits)
    label = f"{metric}: {len(numbers)} scores from {low:.3g} to {low + span:.3g}; bounds: {bounds or 'none'}"
    drawn = "".join([*bars, *lines, scale])
    return f'<svg role="img" aria-label="{text(label)}" viewBox="0 0 {WIDTH} {HEIGHT + 18}">{drawn}</svg>'


def _time(state: RunState) -> str:
    spent = events.spent(state.folder.events)
    rows: list[list[object]] = []
    for name in state.steps:
        took = spent[name]
        seconds = (took.wall_seconds, took.worker_seconds, took.cpu_seconds, took.gpu_seconds)
        rows.append([name, took.rows, *(f"{x:.1f}" for x in seconds)])
    return table("Time", ["stage", "rows", "wall s", "worker s", "CPU-s", "GPU-s"], rows)


def _settings(lock: Mapping[str, Any]) -> str:
    packages = {name: lock["packages"].get(name, "") for name in _SHOWN_PACKAGES}
    manifest = html.escape(shown_lines(json.dumps(lock["manifest"], indent=2, ensure_ascii=False)))
    return (
        table("Versions", ["package", "version"], list(packages.items()))
        + f'<details><summary>resolved manifest</summary><pre tabindex="0">{manifest}</pre></details>'
    )
