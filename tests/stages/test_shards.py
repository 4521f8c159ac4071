import json
from collections import Counter
from io import BytesIO

import datasets
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from ray import cloudpickle

from stages.filter.stage import Filter
from stages.pictures.png import decode_grey, decode_rgb
from stages.score.metrics import BY_STAGE, FURTHER, JUDGED, MEASURED, SCORE_COLUMNS
from stages.shards.columns import KEPT, columns_of
from stages.shards.stage import Shards, ShardsConfig
from tests.stages.tiny_shards import SIDE, TASKS, flat, given_row, mask, published, write_shards

ALL = [given_row(task, number) for number, task in enumerate(TASKS)]
SUMMARY = {
    "name": "a run",
    "seed": 7,
    "planned": 9,
    "published": 4,
    "models": {"clip.model": "ViT-L-14@openai"},
}


@pytest.fixture
def shard(tmp_path):
    return write_shards(tmp_path, [ALL])[0]


def one(task: str, **columns) -> dict:
    [row] = published([given_row(task, **columns)]).to_pylist()
    return row


def test_the_chosen_candidate_is_published_with_its_settings_and_scores():
    row = one("remove")
    assert (row["I"]["bytes"], row["Tar"]["bytes"]) == (flat(10), flat(21))
    assert (row["TI"], row["task"], row["T"]) == (1, "remove", "remove it, number 0")
    settings = [row[name] for name in ("mask_policy", "cross_until", "self_until", "guidance", "seed")]
    assert settings == ["soft", 0.5, 0.25, 5.0, 2**62]
    assert (row["clip_direction"], row["change_inside"], row["clip_image"]) == (0.25, 0.5, None)
    assert json.loads(row["models"]) == {"clip.model": "ViT-L-14@openai"}


def test_a_reverse_task_publishes_its_anchor_as_target():
    row = one("add")
    assert (row["I"]["bytes"], row["Tar"]["bytes"]) == (flat(21), flat(10))
    assert (row["input_caption"], row["output_caption"]) == ("the caption", "the output caption")


def test_a_pair_that_is_good_backwards_says_so_with_its_own_instruction():
    assert (one("remove")["T_inverse"], one("remove")["TI_inverse"]) == ("add old", 2)
    assert (one("detect")["T_inverse"], one("detect")["TI_inverse"]) == (None, None)


def test_a_pair_that_is_rejected_backwards_says_why_and_has_no_way_back():
    row = one("remove", inverse_reason="inverse_present_low")
    assert (row["T_inverse"], row["TI_inverse"]) == (None, None)
    assert row["T_inverse_rejected"] == "inverse_present_low"
    assert one("remove")["T_inverse_rejected"] is None
    assert one("detect", inverse_reason="inverse_present_low")["T_inverse_rejected"] is None, "no way back"


def test_the_card_counts_the_pairs_that_are_good_backwards_and_says_why_others_are_not(tmp_path):
    flaws = ["", "", "inverse_present_low", "inverse_absent_high", "inverse_present_low"]
    rows = [given_row("remove", k, inverse_reason=flaw) for k, flaw in enumerate(flaws)]
    path = write_shards(tmp_path / "shards", [[*rows, given_row("detect", 9)]])[0]
    card = Shards.describe(tmp_path, SUMMARY | {"files": {"shards": [{"name": path.name}]}})
    assert "These are 2 pairs; the filter rejected others backwards: " in card
    assert "1 `inverse_absent_high`, 2 `inverse_present_low`." in card


OTHER = {
    "instruction": "add a ship",
    "output_caption": "a ship",
    "asked_mark": 2.0,
    "mark": 5.0,
    "taken": True,
}


def judged(**columns) -> dict:
    """A published row of a run with a judge. Candidate 1 is the chosen one."""
    marks = [
        {"judge_instruction": k, "judge_consistency": 4.0, "judge_quality": 3.0} for k in (1.0, 2.0, 5.0)
    ]
    reasons = ["first", "second", "third"]
    said = {"judge_scores": marks, "judge_reasons": reasons, "recaptions": [OTHER, None, OTHER]}
    row = given_row("remove", **{**said, **columns})
    [made] = Shards.beside(["judge"])(ShardsConfig(), TASKS)(pa.Table.from_pylist([row])).to_pylist()
    return made


def test_with_a_judge_the_chosen_candidate_s_marks_and_words_are_published():
    row = judged()
    assert [row[f"judge_{name}"] for name in ("instruction", "consistency", "quality")] == [2.0, 4.0, 3.0]
    assert (row["judge_reason"], row["clip_direction"]) == ("second", 0.25)
    assert (row["T"], row["instruction_origin"], row["T_asked"]) == ("remove it, number 0", "instruct", None)
    assert row["T_inverse"] == "add old"


def test_the_judge_s_instruction_is_published_beside_the_asked_one_where_it_was_taken():
    row = judged(choice=2)
    assert (row["T"], row["output_caption"]) == ("add a ship", "a ship")
    assert (row["instruction_origin"], row["T_asked"]) == ("judge", "remove it, number 0")
    assert [row[name] for name in ("edited_object", "original_object", "T_inverse", "TI_inverse")] == [
        None
    ] * 4
    assert row["input_caption"] == "the caption"
    untaken = judged(choice=2, recaptions=[None, None, OTHER | {"taken": False}])
    assert (untaken["T"], untaken["instruction_origin"]) == ("remove it, number 0", "instruct")


@pytest.mark.parametrize("stages", [(), ("measure",), ("judge",), ("measure", "judge")])
def test_beside_optional_stages_their_scores_are_filtered_and_published(stages):
    shards, filtering = Shards.beside(["score", *stages]), Filter.beside(["score", *stages])
    for stage in ("measure", "judge"):
        assert (SCORE_COLUMNS[stage] in shards.reads.get(stage, [])) == (stage in stages)
        assert (SCORE_COLUMNS[stage] in filtering.reads.get(stage, [])) == (stage in stages)
        assert (set(BY_STAGE[stage]) <= set(shards.schema.names)) == (stage in stages)
    assert list(shards.columns) == ["id", *shards.schema.names]
    row = given_row("remove")
    measures = [dict.fromkeys(FURTHER) | {"seam": k / 8} for k in range(3)]
    marks = [dict.fromkeys(JUDGED, 4.0)] * 3
    said = {"judge_scores": marks, "judge_reasons": [""] * 3, "recaptions": [None] * 3}
    row |= ({"measures": measures} if "measure" in stages else {}) | (said if "judge" in stages else {})
    [made] = shards(ShardsConfig(), TASKS)(pa.Table.from_pylist([row])).to_pylist()
    assert made.get("seam") == (0.125 if "measure" in stages else None)
    assert made.get("judge_quality") == (4.0 if "judge" in stages else None)


def test_every_task_has_one_schema_and_no_column_is_typed_null():
    schemas = [published([row]).schema for row in ALL]
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)
    assert not any(pa.types.is_null(field.type) for field in schemas[0])
    expected = {"id", "I", "T", "Tar", "TI", "mask", "session", "turn", *MEASURED}
    assert expected <= set(schemas[0].names)
    assert schemas[0].field("TI").type == pa.int16()


def test_the_mask_is_the_one_that_the_edit_was_made_with():
    candidates = given_row("remove")["candidates"]
    for policy, level in (("soft", 128), ("precise", 255), ("smooth", 200), ("none", 128)):
        row = one("remove", candidates=[{**c, "mask": policy} for c in candidates])
        assert (decode_grey(row["mask"]["bytes"]) == level).all()
    box = one("remove", candidates=[{**c, "mask": "box"} for c in candidates])
    assert (decode_grey(box["mask"]["bytes"]) > 0).sum() == 4
    kept = one("background", precise_mask=mask(255))
    assert (decode_grey(kept["mask"]["bytes"]) == 0).all()


def test_pandas_reads_pictures_and_text(shard):
    frame = pd.read_parquet(shard)
    assert list(frame["task"]) == list(TASKS)
    for column in ("I", "Tar"):
        assert decode_rgb(frame[column][0]["bytes"]).shape == (SIDE, SIDE, 3)
    assert frame["T"][0] == "remove it, number 0"
    assert frame["TI"].tolist() == [1, 2, 4, 8]


def test_datasets_shows_pictures(shard, tmp_path):
    loaded = datasets.load_dataset(
        "parquet", data_files=str(shard), split="train", cache_dir=str(tmp_path / "cache")
    )
    row = loaded[0]
    for column in ("I", "Tar", "mask"):
        assert isinstance(row[column], Image.Image)
    np.testing.assert_array_equal(np.asarray(row["I"]), np.full((SIDE, SIDE, 3), 10))
    assert row["boxes"] == [[1, 2, 3, 4]]
    assert loaded.features["TI"] == datasets.Value("int16")


def test_the_huggingface_metadata_is_what_datasets_writes(shard):
    schema = pq.read_schema(shard)
    features = datasets.Features.from_arrow_schema(schema)
    assert features["I"] == features["Tar"] == features["mask"] == datasets.Image()
    assert features.arrow_schema.equals(pa.schema([f.with_nullable(True) for f in schema]))
    written = json.loads(features.arrow_schema.metadata[b"huggingface"])
    assert json.loads(schema.metadata[b"huggingface"]) == written


def test_duckdb_reads_columns_and_bytes(shard):
    query = f'select task, "TI", "Tar".bytes, clip_direction from \'{shard}\' where "TI" = 2'
    assert duckdb.sql(query).fetchall() == [("add", 2, flat(10), 0.25)]


def test_text_columns_are_read_without_pictures(tmp_path):
    [path] = write_shards(tmp_path, [ALL], row_group=2)
    group = pq.ParquetFile(path).metadata.row_group(0)
    assert group.num_rows == 2
    names = [group.column(i).path_in_schema for i in range(group.num_columns)]
    assert {"I.bytes", "T"} <= set(names)


def test_the_card_describes_the_shards_of_all_turns(tmp_path):
    files = {
        folder: [{"name": path.name} for path in write_shards(tmp_path / folder, parts)]
        for folder, parts in {"shards": [ALL[:2]], "shards.2": [ALL[2:]]}.items()
    }
    card = Shards.describe(tmp_path, {**SUMMARY, "files": files})
    header = yaml.safe_load(card.split("---")[1])
    paths = header["configs"][0]["data_files"][0]["path"]
    assert paths == ["shards/train-*.parquet", "shards.2/train-*.parquet"]
    expected = Counter(published(ALL)["task"].to_pylist())
    assert all(f"| {task} | {count} |" in card for task, count in expected.items())
    assert "| clip.model | `ViT-L-14@openai` |" in card
    assert all(f"| `{name}` |" in card for name in published(ALL).schema.names)


def test_a_picture_s_path_is_its_row_s(shard):
    frame = pd.read_parquet(shard)
    assert frame["I"][0]["path"] == f"{frame['id'][0]}-input.png"
    assert Image.open(BytesIO(frame["mask"][0]["bytes"])).mode == "L"


def test_the_class_beside_optional_stages_can_be_sent_to_a_worker():
    for others in ([], ["judge"], ["measure", KEPT], ["measure", "judge", KEPT]):
        stage = Shards.beside(["score", *others])
        [sent, again] = cloudpickle.loads(cloudpickle.dumps([stage, stage]))
        assert sent is again
        assert sent.schema == stage.schema
        assert sent.reads == stage.reads
        assert sent.schema.names == [name for name in columns_of(others) if name != "id"]
