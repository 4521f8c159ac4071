"""Rows for the report's gallery: kept, rejected and near-boundary rows, with thumbnails.

Mask overlay and difference pictures are drawn here, so the page computes nothing.
"""

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from typing import Any

import numpy as np
from PIL import Image

from pipeline.engine.state import RunState
from pipeline.views.outcomes import Outcome, finite
from pipeline.views.rows import best_candidate, done_stages, rows
from stages.edit.annotations.marks import tinted
from stages.filter.model import UNCALIBRATED, Models
from stages.pair import as_pair
from stages.pictures.png import decode_mask, decode_rgb
from stages.placed import step_name
from stages.score.metrics import SCORE_COLUMNS, score_columns, scores_of
from stages.tasks import Bounds, Task

SIDE = 160
"""Longest side of a thumbnail in pixels. Smaller pictures keep their size."""
NEAR = 0.1
"""A score is near its bound if the distance is below this share of the bound."""
COLUMNS = {
    "describe": ["caption"],
    "instruct": ["instruction", "output_caption", "edited_object", "original_object"],
    "source": ["source_image"],
    "mask": ["precise_mask"],
    "edit": ["anchor", "candidates"],
    **score_columns(SCORE_COLUMNS),
    "filter": ["choice"],
}


@dataclass
class Shown:
    """One row of the gallery. Pictures are data URLs; empty if the row did not get that far."""

    id: str
    turn: int
    task: str
    status: str
    stage: str
    reason: str
    caption: str
    output_caption: str
    instruction: str
    near: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)
    input: str = ""
    target: str = ""
    overlay: str = ""
    difference: str = ""
    damage: str = ""
    """The reason why an expected picture is missing."""


def choose_rows(
    found: Sequence[Outcome], bounds: Mapping[str, Mapping[str, Bounds]], wanted: int, seed: int
) -> list[Outcome]:
    """Choose at most ``wanted`` rows: a third near a bound, the rest spread evenly over (task, outcome).

    Args:
        found: the result of :func:`survey`.
        bounds: bounds by task and metric.
    """
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    near: list[int] = []
    for index, row in enumerate(found):
        groups[row.task, row.outcome].append(index)
        if is_near(row.scores, bounds.get(row.task, {})):
            near.append(index)
    chosen = {near[i] for i in rng.permutation(len(near))[: wanted // 3]}
    places: dict[str, list[list[int]]] = defaultdict(list)
    for (task, _), group in sorted(groups.items()):
        places[task].append([group[i] for i in rng.permutation(len(group))])
    # Take the first outcome of every task, then the second outcome of every task, and so on.
    shuffled = [group for level in zip_longest(*places.values()) for group in level if group]
    for depth in range(max(map(len, shuffled), default=0)):
        for group in shuffled:
            if depth < len(group) and len(chosen) < wanted:
                chosen.add(group[depth])
    return [found[index] for index in sorted(chosen)]


def is_near(scores: Mapping[str, float], bounds: Mapping[str, Bounds]) -> bool:
    """Whether any score is within ``NEAR`` of its bound, relative to the bound."""
    for metric, bound in bounds.items():
        value = scores.get(metric)
        for limit in (bound.min, bound.max):
            if value is not None and limit is not None and abs(value - limit) <= NEAR * max(abs(limit), 0.05):
                return True
    return False


def read_shown(
    state: RunState,
    tasks: Mapping[str, Task],
    bounds: Mapping[str, Mapping[str, Bounds]],
    part: int,
    chosen: Iterable[Outcome],
    models: Models = UNCALIBRATED,
) -> list[Shown]:
    """The chosen rows of a part. The turns of a session are adjacent."""
    shown = []
    by_turn: dict[int, list[str]] = defaultdict(list)
    for outcome in chosen:
        by_turn[outcome.turn].append(outcome.id)
    for turn, ids in by_turn.items():
        stages = done_stages(state, part, turn)
        reads = {"plan": ["task", "caption"], **{stage: COLUMNS.get(stage, ()) for stage in stages}}
        for row in rows(state, part, reads, turn=turn, ids=ids):
            best = best_candidate(row, models)
            shown.append(_shown(row, turn, tasks[row["task"]], bounds.get(row["task"], {}), best))
    return sorted(shown, key=lambda row: (row.id, row.turn))


def _shown(
    row: Mapping[str, Any], turn: int, task: Task, bounds: Mapping[str, Bounds], choice: int | None
) -> Shown:
    shown = Shown(
        id=row["id"],
        turn=turn,
        task=task.name,
        status=row.get("status", "pending"),
        stage=row.get("step") or step_name("plan", turn),
        reason=row.get("reason", ""),
        caption=row["caption"] or "",
        output_caption=row.get("output_caption") or "",
        instruction=row.get("instruction") or "",
    )
    if choice is not None:
        shown.scores = finite(scores_of(row)[choice])
        shown.near = is_near(shown.scores, bounds)
    try:
        _draw(shown, task, row, choice or 0)
    except ValueError as error:
        shown.damage = str(error)
    return shown


def _draw(shown: Shown, task: Task, row: Mapping[str, Any], choice: int) -> None:
    """Fill in the pictures.

    Raises:
        ValueError: a picture cannot be decoded.
    """
    candidates = row.get("candidates") or []
    if candidates:
        pair = as_pair(task, row["anchor"], candidates[choice]["image"], "", "")
        i, tar = decode_rgb(pair.input), decode_rgb(pair.target)
        mask = decode_mask(row["precise_mask"])
        if i.shape != tar.shape or i.shape[:2] != mask.shape:
            raise ValueError("the pictures differ in size")
        shown.input, shown.target = thumbnail(i), thumbnail(tar)
        shown.difference = thumbnail(np.abs(i.astype(int) - tar).astype(np.uint8))
        shown.overlay = thumbnail(tinted(i, mask))
    elif row.get("source_image"):
        shown.input = thumbnail(decode_rgb(row["source_image"]))


def thumbnail(image: np.ndarray) -> str:
    """A picture, uint8 [h,w,3], as a data URL. No side is longer than ``SIDE`` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    content = BytesIO()
    picture.save(content, "webp", quality=85)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
