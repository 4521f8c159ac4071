"""MagicBrush (Zhang et al. 2023): sessions of edits by hand, with results.

Captions are in ``global_descriptions.json``, which comes with the dev and test sets: by session, the caption
of each picture, such as ``{"327081": {"327081-input.png": "...", "327081-output1.png": "..."}}``. It is read
from the folder of the parquet files or the folder above. Without it, CLIP's metrics of texts are left out.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from editor.data.foreign import ForeignRow, text
from pipeline.errors import UserError
from pipeline.store.location import Location

MAGICBRUSH = frozenset({"img_id", "turn_index", "source_img", "instruction", "target_img"})
DESCRIPTIONS = "global_descriptions.json"


class MagicBrush:
    """Reads all turns. Each begins with the true result of the turn before."""

    columns: Sequence[str] = ("img_id", "turn_index", "source_img", "instruction", "target_img")

    def __init__(self, files: Sequence[Location], split: str, notes: Counter[str]) -> None:
        self._captions, self._notes = _descriptions(files[0]), notes

    def read(self, file: Location, number: int, record: Mapping[str, Any]) -> ForeignRow:
        session, turn = text(record, "img_id"), int(record["turn_index"] or 1)
        captions = self._captions.get(session, {})
        before = "input" if turn == 1 else f"output{turn - 1}"
        found = [captions.get(f"{session}-{name}.png") or "" for name in (before, f"output{turn}")]
        if not all(found):
            self._notes[f"rows without captions in a {DESCRIPTIONS} beside the files"] += 1
        return ForeignRow(
            f"{session}-{turn}",
            session,
            text(record, "instruction"),
            record["source_img"],
            record["target_img"],
            *found,
        )


def _descriptions(file: Location) -> dict[str, dict[str, str]]:
    for folder in (file.parent, file.parent.parent):
        path = folder / DESCRIPTIONS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(content, dict) or not all(isinstance(each, dict) for each in content.values()):
            raise UserError(f"{path} must hold the captions of each session by picture")
        return {
            str(session): {name: caption for name, caption in pictures.items() if isinstance(caption, str)}
            for session, pictures in content.items()
        }
    return {}
