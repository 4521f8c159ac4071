"""Training examples of published pairs: both directions, the split, unusable rows, cached latents."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from editor.config import DataConfig
from editor.data.examples import Reading, pair_files
from editor.data.latents import LatentCache, ensure_cache
from editor.model.loading import new_editor
from pipeline.errors import UserError
from pipeline.exports import side_of
from stages.base import Weights
from stages.pictures.png import decode_rgb
from tests.editor.tiny_editor import pair_row, picture, write_pairs
from tests.stages.tiny_pipelines import save_stable_diffusion
from tests.stages.tiny_shards import TASKS, published, write_shards


def read(folder, **options) -> tuple[list, Reading]:
    reading = Reading([str(folder)], options.pop("test_share", 0.3), **options)
    return list(reading.rows(5)), reading


def changed(folder, column: str, value) -> None:
    """Replace a column's value in the first row of the first shard."""
    file = pair_files(str(folder))[0]
    table = pq.read_table(file)
    values = table[column].to_pylist()
    values[0] = value
    at = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(at, table.schema.field(column), pa.array(values, table.schema.field(column).type)),
        file,
    )


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = save_stable_diffusion(tmp_path_factory.mktemp("model") / "model")
    return new_editor(Weights(model=str(folder)), "base.model", TASKS, zero_terminal_snr=False)


def test_a_pair_is_read_forwards_and_backwards(tmp_path):
    write_shards(tmp_path, [[pair_row("remove", 0), pair_row("detect", 1)]])
    rows, _ = read(tmp_path)
    there, back = rows[0].examples
    assert (there.instruction, there.index, there.backwards) == ("remove it, number 0", 1, False)
    assert (back.instruction, back.index, back.backwards) == ("add old", 2, True)
    assert len(rows[1].examples) == 1, "a box has no way back"
    assert np.array_equal(rows[0].before, decode_rgb(picture(0)))
    assert [len(row.examples) for row in read(tmp_path, inverse=False)[0]] == [1, 1]
    only_add, _ = read(tmp_path, indices=frozenset([2]))
    assert [example.instruction for row in only_add for example in row.examples] == ["add old"]


def test_a_caption_is_on_the_side_that_export_puts_it_on(tmp_path):
    write_pairs(tmp_path, 40)
    rows, _ = read(tmp_path)
    assert {row.side for row in rows} == {"train", "test"}
    for row in rows:
        assert row.side == side_of(row.input_caption, 0.3)


def test_all_turns_of_a_session_are_on_the_side_of_its_first_caption(tmp_path):
    sides = defaultdict(set)
    for turn, folder in ((1, "shards"), (2, "shards.2")):
        rows = [pair_row("remove", number) for number in range(40)]
        table = published(rows)
        captions = pa.array([f"turn {turn} of {number}" for number in range(40)])
        table = table.set_column(table.schema.get_field_index("input_caption"), "input_caption", captions)
        (tmp_path / folder).mkdir()
        pq.write_table(table, tmp_path / folder / "train-00000-of-00001.parquet")
    for row in read(tmp_path)[0]:
        sides[row.id].add(row.side)
    assert len(sides) == 40
    assert all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "test"}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("I", {"bytes": b"no picture", "path": None}, "picture that cannot be read"),
        ("Tar", None, "picture that cannot be read"),
        ("Tar", {"bytes": picture(1, 24), "path": None}, "I and Tar of different sizes"),
        ("T", "   ", "no instruction or task"),
        ("T", None, "no instruction or task"),
        ("TI", None, "no instruction or task"),
    ],
)
def test_a_row_that_cannot_be_used_costs_that_row_and_is_counted(tmp_path, column, value, reason):
    write_shards(tmp_path, [[pair_row("detect", 0), pair_row("detect", 1)]])
    changed(tmp_path, column, value)
    rows, reading = read(tmp_path)
    assert [row.examples[0].instruction for row in rows] == ["detect it, number 1"]
    assert dict(reading.skipped) == {reason: 1}


def test_a_shard_without_instructions_is_named(tmp_path):
    (file,) = write_shards(tmp_path, [[pair_row("detect", 0)]])
    pq.write_table(pq.read_table(file).drop_columns(["T"]), file)
    with pytest.raises(UserError, match=r"has no column T: it is no shard"):
        read(tmp_path)


def test_a_folder_without_pairs_and_a_missing_one_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="holds no pairs yet: run editpairs generate"):
        pair_files(str(tmp_path))
    with pytest.raises(UserError, match="there are no pairs at"):
        pair_files(str(tmp_path / "none"))


def test_latents_are_those_of_the_pictures_and_are_encoded_once(tmp_path, network, monkeypatch):
    write_pairs(tmp_path / "pairs", 10)
    config = DataConfig(pairs=(str(tmp_path / "pairs"),), test_share=0.3, batch=3)
    first = ensure_cache(tmp_path / "cache", config, network, TASKS)
    sides = {side: LatentCache(tmp_path / "cache", side) for side in ("train", "test")}
    rows, _ = read(tmp_path / "pairs")
    expected = {(example.instruction, row.id): (row, example) for row in rows for example in row.examples}
    assert sum(map(len, sides.values())) == len(expected)
    for side, cache in sides.items():
        batch = cache.batch(np.arange(len(cache)))
        for k, key in enumerate(zip(cache.instructions(), cache.table["id"].to_pylist(), strict=True)):
            row, example = expected[key]
            pictures = [row.before, row.after][:: -1 if example.backwards else 1]
            for found, image in zip((batch.before[k], batch.after[k]), pictures, strict=True):
                assert torch.allclose(found, network.encode(image[None])[0], atol=2e-3, rtol=2e-3)
            assert row.side == side
            assert network.table.indices[batch.rows[k]] == example.index
    monkeypatch.setattr(network, "encode", None)
    assert ensure_cache(tmp_path / "cache", config, network, TASKS) == first


def test_latents_are_encoded_again_when_the_pairs_change(tmp_path, network):
    write_pairs(tmp_path / "pairs", 4)
    config = DataConfig(pairs=(str(tmp_path / "pairs"),))
    first = ensure_cache(tmp_path / "cache", config, network, TASKS)
    changed(tmp_path / "pairs", "T", "another instruction")
    assert ensure_cache(tmp_path / "cache", config, network, TASKS) != first
    sides = [LatentCache(tmp_path / "cache", side) for side in ("train", "test")]
    assert "another instruction" in [text for side in sides for text in side.instructions()]


def test_a_task_that_the_editor_does_not_know_is_named(tmp_path, network):
    write_shards(tmp_path, [[pair_row("detect", 0)]])
    changed(tmp_path, "TI", 77)
    config = DataConfig(pairs=(str(tmp_path),))
    with pytest.raises(
        UserError, match=r"row \w+: no task has the index 77; tasks of this editor: remove \(1\)"
    ):
        ensure_cache(tmp_path / "cache", config, network, TASKS)


def test_pictures_of_another_size_cost_their_rows(tmp_path, network):
    large = pair_row("detect", 0) | {"anchor": picture(0, 24)}
    large["candidates"] = [{**each, "image": picture(1, 24)} for each in large["candidates"]]
    write_shards(tmp_path, [[large]])
    config = DataConfig(pairs=(str(tmp_path),))
    with pytest.raises(UserError, match=r"no pair can be used \(1 not 16 x 16 pixels, as the model needs\)"):
        ensure_cache(tmp_path / "cache", config, network, TASKS)
