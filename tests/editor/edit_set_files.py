"""Small data sets of other projects, in parquet as they publish them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.shards.card import PICTURE
from tests.editor.tiny_editor import picture


def cell(seed: int, side: int = 16) -> dict:
    return {"bytes": picture(seed, side), "path": None}


def write(file: Path, rows: list[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = {name for row in rows for name, value in row.items() if isinstance(value, dict)}
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        columns[name] = pa.array(values, PICTURE) if name in pictures else pa.array(values)
    pq.write_table(pa.table(columns), file)
    return file


def emu_row(number: int, **changes) -> dict:
    row = {
        "idx": number,
        "image": cell(number),
        "instruction": f"remove thing {number}",
        "task": "remove",
        "split": "test",
        "input_caption": f"a thing {number}",
        "output_caption": f"nothing {number}",
        "hash": "x",
    }
    return row | changes


def magicbrush_row(session: str, turn: int, **changes) -> dict:
    row = {
        "img_id": session,
        "turn_index": turn,
        "source_img": cell(turn),
        "mask_img": cell(50),
        "instruction": f"turn {turn}",
        "target_img": cell(turn + 1),
    }
    return row | changes


def write_descriptions(folder: Path, session: str, *captions: str) -> None:
    names = ["input", *(f"output{turn}" for turn in range(1, len(captions)))]
    pictures = {f"{session}-{name}.png": caption for name, caption in zip(names, captions, strict=True)}
    (folder / "global_descriptions.json").write_text(json.dumps({session: pictures}))


def instruct_pix2pix_row(number: int, **changes) -> dict:
    row = {
        "original_prompt": "a red car",
        "original_image": cell(number),
        "edit_prompt": "make it blue",
        "edited_prompt": "a blue car",
        "edited_image": cell(number + 100),
    }
    return row | changes
