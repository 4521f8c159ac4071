"""Edits of any data set: which one it is, what its columns mean, rows that cannot be used."""

import numpy as np
import pytest

from editor.data.edit_sets import EditSet
from pipeline.errors import UserError
from stages.pictures.png import decode_rgb, encode_png
from tests.editor.edit_set_files import (
    cell,
    emu_row,
    instruct_pix2pix_row,
    magicbrush_row,
    write,
    write_descriptions,
)
from tests.editor.tiny_editor import pair_row, picture, write_pairs
from tests.stages.tiny_shards import write_shards


def pixels(seed: int, side: int = 16) -> np.ndarray:
    return decode_rgb(picture(seed, side))


def test_pairs_of_ours_are_read_forwards_and_only_the_held_out_ones(tmp_path):
    write_pairs(tmp_path, 40)
    everything = list(EditSet(str(tmp_path)))
    assert len(everything) == 40
    held_out = EditSet(str(tmp_path), test_share=0.3)
    chosen = list(held_out)
    assert 0 < len(chosen) < 40
    assert held_out.skipped.total() == 40 - len(chosen)
    assert list(held_out.skipped) == ["not held out from training (--test-share 1 takes all pairs)"]
    first = everything[0]
    assert (first.instruction, first.task) == ("add it, number 0", 2)
    assert (first.before_caption, first.after_caption) == ("caption 0", "the output caption")


def test_emu_edit_s_rows_follow_their_own_split_and_bad_ones_are_named(tmp_path):
    other = {"split": "validation"}
    rows = [
        emu_row(1),
        emu_row(2, input_caption="A train station in city.", output_caption="a dog"),
        emu_row(3, output_caption="A thing  3"),
        emu_row(4, input_caption=""),
        emu_row(5, image={"bytes": b"no picture", "path": None}),
        emu_row(6, instruction=" "),
        emu_row(7, **other),
    ]
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", rows)
    edits = EditSet(str(tmp_path))
    assert edits.format == "Emu Edit's test set"
    (edit,) = edits
    assert (edit.id, edit.instruction, edit.task, edit.after) == ("1", "remove thing 1", "remove", None)
    assert (edit.before_caption, edit.after_caption) == ("a thing 1", "nothing 1")
    assert np.array_equal(edit.before, pixels(1))
    assert dict(edits.skipped) == {
        "placeholder instead of a caption": 1,
        "both captions are the same": 1,
        "no caption": 1,
        "picture that cannot be read": 1,
        "no instruction": 1,
    }
    assert dict(edits.notes) == {"rows of split test in files named validation": 6}
    assert [edit.id for edit in EditSet(str(tmp_path), split="validation")] == ["7"]


def test_magicbrush_s_captions_are_those_of_its_pictures(tmp_path):
    write(tmp_path / "data" / "dev-00000.parquet", [magicbrush_row("9", 1), magicbrush_row("9", 2)])
    write_descriptions(tmp_path, "9", "a dog", "a cat", "a cow")
    edits = EditSet(str(tmp_path))
    first, second = edits
    assert edits.format == "MagicBrush"
    assert (first.id, first.group, first.instruction, first.task) == ("9-1", "9", "turn 1", None)
    assert (first.before_caption, first.after_caption) == ("a dog", "a cat")
    assert (second.before_caption, second.after_caption) == ("a cat", "a cow")
    assert np.array_equal(first.after, pixels(2))
    assert not edits.notes


def test_magicbrush_without_captions_says_so(tmp_path):
    write(tmp_path / "dev-00000.parquet", [magicbrush_row("9", 1)])
    edits = EditSet(str(tmp_path))
    (edit,) = edits
    assert (edit.before_caption, edit.after_caption) == ("", "")
    assert dict(edits.notes) == {"rows without captions in a global_descriptions.json beside the files": 1}
    (tmp_path / "global_descriptions.json").write_text('["no"]')
    with pytest.raises(UserError, match="must hold the captions of each session"):
        list(edits)
    (tmp_path / "global_descriptions.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        list(edits)


def test_instruct_pix2pix_s_edits_of_one_caption_are_one_group(tmp_path):
    file = write(tmp_path / "train.parquet", [instruct_pix2pix_row(1), instruct_pix2pix_row(2)])
    edits = EditSet(str(file))
    first, second = edits
    assert edits.format == "InstructPix2Pix"
    assert (first.id, second.id, first.group == second.group) == ("1", "2", True)
    assert (first.before_caption, first.after_caption) == ("a red car", "a blue car")
    assert np.array_equal(second.after, pixels(102))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"original_image": {"bytes": None, "path": "/etc/passwd"}}, "no picture"),
        ({"edited_image": cell(1, 24)}, "pictures of different sizes"),
        ({"edit_prompt": None}, "no instruction"),
    ],
)
def test_a_row_that_cannot_be_used_costs_that_row(tmp_path, changes, reason):
    write(tmp_path / "train.parquet", [instruct_pix2pix_row(1, **changes), instruct_pix2pix_row(2)])
    edits = EditSet(str(tmp_path))
    assert [edit.id for edit in edits] == ["2"]
    assert dict(edits.skipped) == {reason: 1}


def test_pictures_are_resized_only_when_asked_and_from_their_centre(tmp_path):
    tall = np.zeros((16, 8, 3), np.uint8)
    tall[4:12] = 200
    picture = {"bytes": encode_png(tall), "path": None}
    write(tmp_path / "a.parquet", [instruct_pix2pix_row(1, original_image=picture, edited_image=picture)])
    (plain,), (small,) = EditSet(str(tmp_path)), EditSet(str(tmp_path), side=4)
    assert plain.before.shape == (16, 8, 3)
    assert small.before.shape == small.after.shape == (4, 4, 3)
    assert (small.before == 200).all()


def test_columns_of_no_known_data_set_are_named(tmp_path):
    write(tmp_path / "a.parquet", [{"x": 1}])
    with pytest.raises(UserError, match=r"the columns x are those of no known data set \(editpairs: I, T"):
        _ = EditSet(str(tmp_path)).format


def test_a_file_that_is_no_parquet_is_one_message(tmp_path):
    (tmp_path / "a.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read"):
        _ = EditSet(str(tmp_path)).format


def test_a_damaged_picture_of_ours_costs_its_row(tmp_path):
    row = pair_row("detect", 0) | {"anchor": b"no picture"}
    write_shards(tmp_path, [[row, pair_row("detect", 1)]])
    edits = EditSet(str(tmp_path))
    assert len(list(edits)) == 1
    assert edits.skipped.total() == 1
