"""Z-Image's padding, which is attended and moves the picture: captions of one row are padded alike."""

import pyarrow as pa
import pytest
import torch

from stages.edit.stage import Edit
from stages.models.diffusion.families.zimage_network import LEARNED, READ
from tests.stages.drawn_families import KINDS, SIZE, loaded
from tests.stages.edit_rows import assert_refused, drawn_rows, tasks

LONGER = " on a red car on a blue ball" * 4
DIFFUSION = {"sampler": "flow_euler", "steps": 3, "guidance_scale": 4.0, "height": SIZE[0], "width": SIZE[1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return KINDS["zimage"].save(tmp_path_factory.mktemp("zimage"))


def test_captions_of_a_pair_have_one_room(folder):
    prompts = loaded("zimage", folder).prompts
    pair = ("a red car", "a red car" + LONGER)
    assert [prompts.room(each) for each in pair] == [32, 64]
    alone = prompts.encode(list(pair))
    assert (alone.mask > 0).sum(1).tolist() == [32, 64]
    together = prompts.encode(list(pair), [pair] * 2)
    assert (together.mask > 0).sum(1).tolist() == [64, 64]
    assert (together.mask == READ).sum(1).tolist() == (alone.mask == READ).sum(1).tolist()
    assert torch.equal(together.states, alone.states)
    first = together.mask[0].tolist()
    assert first == sorted(first, reverse=True), "what was read, then padding that is attended, then nothing"
    assert set(first) == {READ, LEARNED, 0}


def test_a_source_is_drawn_for_its_pair_in_both_stages(folder):
    """With another room it would be another picture."""
    settings = {"model": str(folder), **DIFFUSION}
    table = drawn_rows(settings, (0, 1, 2), SIZE, 8, LONGER)
    editor = Edit(Edit.Config.model_validate({"diffusion": settings, "batch": 3}), tasks())
    for record in editor(table).to_pylist():
        assert record["source_drift"] <= 1 / 255
    short = drawn_rows(settings, (0, 1, 2), SIZE, 8)
    assert short["source_image"][0] != table["source_image"][0]
    model = loaded("zimage", folder)
    noise, guidance = model.initial_latents([1], SIZE), torch.full((1,), 4.0)
    drawn = [
        model.sample(noise, model.family.encode(["a red car"], [pair]), guidance, [1])
        for pair in (("a red car",), ("a red car", "a red car" + LONGER))
    ]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-3


def test_a_later_turn_needs_no_more_room_than_the_first(folder):
    """Its pictures are drawn again from the first turn's, which another room would change."""
    settings = {"model": str(folder), **DIFFUSION}
    editor = Edit(Edit.Config.model_validate({"diffusion": settings, "batch": 3}), tasks())
    row = drawn_rows(settings, (0,), SIZE, 8).to_pylist()[0]
    second = {**row, "history": [{**row, "candidate": 0}], "caption": row["output_caption"], "seed": 7}
    requests = [
        {**second, "id": name, "output_caption": "a blue ball" + more}
        for name, more in (("fits", ""), ("longer", LONGER))
    ]
    fits, longer = editor(pa.Table.from_pylist(requests)).to_pylist()
    assert fits["status"] == "kept"
    assert (longer["status"], longer["reason"]) == ("rejected", "caption_exceeds_text_encoder")


def test_a_map_of_tokens_is_refused(folder):
    """The padding of a picture is among the text, of which the map knows nothing."""
    keys = {"diffusion": {"model": str(folder), **DIFFUSION}, "batch": 3, "control": "p2p"}
    own = tasks({"mask": "soft", "cross_until": 0.5, "self_until": 0.5})
    assert_refused(Edit.Config.model_validate(keys), own, r"edit\.control: p2p is not yet .* set qk or kv")
