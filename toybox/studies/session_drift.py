"""The drift of untouched pixels in the sessions of runs, for ``toybox.studies.turn_drift``."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas

from pipeline.api import open_run
from stages.edit.config import EditConfig
from stages.pictures.masks import disc
from stages.pictures.png import decode_grey, decode_rgb
from stages.pictures.region import MARGIN

COLUMNS = ["session", "turn", "I", "Tar", "mask"]

Rows = Sequence[Mapping[str, Any]]

SECTION = """
## In sessions of the pipeline

```
p2p='tasks.mixture={local: 1, remove: 1, texture: 1, background: 2, color: 2}'
editpairs generate manifests/toybox.yaml --set name=sessions-none --set turns=3 --set rows=24 --set seed=5 \\
  --set "$p2p"                                        # and --set edit.pixel_threshold.mode=always
```

Bounds were loosened so that more sessions go on. *As drawn*: with task files that say `composite: false`.
Untouched is what lies outside the masks of all turns so far, by more than 1/16 of the side. *Drift* is the
mean difference from the session's first I over its untouched pixels; *unchanged* is the share of them that
is equal to the bit. `composite` pastes the outside from the picture before, so nothing can drift there. Few
sessions reach the third turn, and a later line is of fewer sessions than the one before.
"""


def session_table(runs: Sequence[Path]) -> Iterator[str]:
    """A section about the sessions of some runs, a line for each run and turn."""
    yield SECTION
    yield "| outside | `pixel_threshold` | turn | sessions | drift | unchanged |"
    yield "|---|---|---:|---:|---:|---:|"
    for folder in runs:
        run = open_run(folder)
        threshold = run.manifest.section("edit", EditConfig).pixel_threshold
        mode = "none" if threshold is None else threshold.mode
        pasted = "pasted" if all(task.composite for task in run.tasks.values()) else "as drawn"
        frame = pandas.read_parquet(sorted(folder.glob("shards*/train-*.parquet")), columns=COLUMNS)
        for turn, found in sorted(drift_by_turn(frame.to_dict("records")).items()):
            drift, unchanged = np.mean(found, axis=0)
            yield f"| {pasted} | {mode} | {turn} | {len(found)} | {drift:.4f} | {unchanged:.2f} |"


def drift_by_turn(rows: Rows) -> dict[int, list[tuple[float, float]]]:
    """Drift and share of unchanged pixels of each session that has untouched pixels, by turn.

    Args:
        rows: published rows with ``COLUMNS``.
    """
    sessions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["turn"]):
        sessions[row["session"]].append(row)
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for turns in sessions.values():
        first = decode_rgb(turns[0]["I"]["bytes"])
        untouched = np.ones(first.shape[:2], bool)
        for row in turns:
            untouched &= outside(decode_grey(row["mask"]["bytes"]))
            if untouched.any():
                difference = np.abs(decode_rgb(row["Tar"]["bytes"]) / 255 - first / 255)[untouched]
                found[row["turn"]].append((float(difference.mean()), float((difference == 0).all(-1).mean())))
    return dict(found)


def outside(mask: np.ndarray) -> np.ndarray:
    """Where a mask, uint8 [h,w], is 0 up to the metrics' margin; bool [h,w]."""
    radius = max(1, round(MARGIN * min(mask.shape)))
    return cv2.dilate((mask > 0).astype(np.uint8), disc(radius)) == 0
