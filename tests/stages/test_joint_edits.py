"""The edit stage with every control of joint attention, on small random models of each family."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.edit.stage import Edit
from stages.pictures.png import encode_png
from tests.stages.edit_rows import assert_refused, drawn_rows, latents_of, tasks
from tests.stages.test_flux_edits import HEIGHT, WIDTH
from tests.stages.tiny_pipelines import save_flux, save_sd3, save_stable_diffusion

HELD: dict = {"hold": "exact", "mask_attention": False}
SPARSE: dict = {**HELD, "region": "schedule", "cheap_candidates": 1}
KINDS = ("qk", "p2p", "kv")
WAYS = [
    ("flux", "qk", SPARSE),
    ("flux", "p2p", {}),
    ("flux", "kv", HELD),
    ("sd35", "qk", HELD),
    ("sd35", "p2p", SPARSE),
    ("sd35", "kv", {}),
]
BOTH = {"mask": "none", "cross_until": 1.0, "self_until": 1.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("joint")
    return {"flux": save_flux(root / "flux", guidance=True), "sd35": save_sd3(root / "sd35")}


def diffusion(folder) -> dict:
    size = {"height": HEIGHT, "width": WIDTH}
    return {"model": str(folder), "sampler": "flow_euler", "steps": 3, "guidance_scale": 4.0, **size}


def rows(folder, *seeds: int, side: int = 8) -> pa.Table:
    return drawn_rows(diffusion(folder), seeds, (HEIGHT, WIDTH), side)


def stage(folder, candidate: dict | None = None, **keys) -> Edit:
    config = Edit.Config.model_validate({"diffusion": diffusion(folder), "batch": 3, **keys})
    return Edit(config, tasks(candidate or BOTH))


@pytest.mark.parametrize("family", ["flux", "sd35"])
def test_every_control_gate_and_choice_of_blocks_draws_something_else(folders, family, monkeypatch):
    table = rows(folders[family], 0, 1, 2)
    ways = {
        "none": {"control": "qk", "candidate": {"mask": "none"}},
        "qk": {"control": "qk"},
        "kv": {"control": "kv"},
        "p2p": {"control": "p2p"},
        "p2p, text": {"control": "p2p", "candidate": {**BOTH, "self_until": 0.0}},
        "p2p, picture": {"control": "p2p", "candidate": {**BOTH, "cross_until": 0.0}},
        "p2p, refined": {"control": "p2p", "candidate": {**BOTH, "control": "refine"}},
        "p2p, changed words": {"control": "p2p", "candidate": {**BOTH, "changed_until": 0.6}},
        "p2p, a weight": {"control": "p2p", "candidate": {**BOTH, "changed_weight": 4.0}},
        "qk, the first half": {"control": "qk", "blocks": 0.5},
        "qk, the last block": {"control": "qk", "blocks": [2]},
        "p2p, the last block": {"control": "p2p", "candidate": {**BOTH, "blocks": [2]}, "blocks": [0]},
    }
    drawn = {
        name: latents_of(stage(folders[family], **way), table, monkeypatch) for name, way in ways.items()
    }
    for name, latents in drawn.items():
        assert torch.equal(latents[:, 0], drawn["none"][:, 0]), "sources are as without control"
        for other in drawn:
            if other < name:
                assert (latents[:, 1] - drawn[other][:, 1]).abs().max() > 1e-6, (name, other)


@pytest.mark.parametrize("family", ["flux", "sd35"])
def test_qk_is_what_transformers_have_without_the_key_and_all_blocks_are_one(folders, family, monkeypatch):
    table = rows(folders[family], 0, 1, 2)
    blocks = list(range(4 if family == "flux" else 3))
    usual, named, listed = (
        latents_of(stage(folders[family], **keys), table, monkeypatch)
        for keys in ({}, {"control": "qk"}, {"blocks": blocks})
    )
    assert torch.equal(usual, named)
    assert torch.equal(usual, listed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["flux", "sd35"])
def test_an_edit_computed_in_its_region_is_the_held_edit(folders, family, kind, monkeypatch):
    """But for rounding in float32; a candidate with LocalBlend is drawn whole."""
    table, candidate = rows(folders[family], 0, 1, 2), {**BOTH, "mask": "soft", "self_until": 0.7}
    held, sparse = (
        latents_of(stage(folders[family], candidate, control=kind, **keys), table, monkeypatch)
        for keys in (HELD, SPARSE)
    )
    assert 0 < (held - sparse).abs().max() < 1e-5
    blended = {**candidate, "blend": 0.5}
    held, sparse = (
        latents_of(stage(folders[family], blended, control=kind, **keys), table, monkeypatch)
        for keys in (HELD, SPARSE)
    )
    assert torch.equal(held, sparse)


@pytest.mark.parametrize(("family", "kind", "keys"), WAYS)
def test_an_empty_mask_gives_the_source(folders, family, kind, keys, monkeypatch):
    """Latents are equal to the bit."""
    table = rows(folders[family], 0, 1, 2, side=0)
    editor = stage(folders[family], {**BOTH, "mask": "soft"}, control=kind, **keys)
    latents = latents_of(editor, table, monkeypatch)
    assert torch.equal(latents[:, 0], latents[:, 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["flux", "sd35"])
def test_local_blend_keeps_the_source_where_no_words_are_looked_at(folders, family, kind, monkeypatch):
    """Some latents are the source's to the bit, some are not; a threshold of 0 keeps nothing."""
    table = rows(folders[family], 0, 1, 2)
    for threshold, some in ((0.97, True), (0.0, False)):
        editor = stage(folders[family], {**BOTH, "blend": threshold}, control=kind)
        latents = latents_of(editor, table, monkeypatch)
        same = (latents[:, 0] == latents[:, 1]).all(1).flatten(1)
        assert same.any(1).all() == some
        assert not same.all(1).any()


@pytest.mark.parametrize(("family", "kind", "keys"), WAYS)
def test_a_later_turn_edits_the_picture_of_the_turn_before(folders, family, kind, keys, monkeypatch):
    """Outside its own mask it has that turn's latents, to the bit."""
    first = rows(folders[family], 0, 1, 2, side=4).to_pylist()
    second = rows(folders[family], 0, 1, 2, side=4).to_pylist()
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:8, 16:20] = 255
    for row, past in zip(second, first, strict=True):
        row["history"] = [{**past, "candidate": 0}]
        row |= {"caption": row["output_caption"], "output_caption": "a blue ball on a car"}
        row |= dict.fromkeys(("precise_mask", "smooth_mask", "soft_mask"), encode_png(mask))
    editor = stage(folders[family], {**BOTH, "mask": "soft"}, control=kind, **keys)
    model, drawn = editor.drawing.model, []
    kept = model.sample
    with monkeypatch.context() as patched:
        patched.setattr(
            model, "sample", lambda *given, **named: drawn.append(kept(*given, **named)) or drawn[-1]
        )
        editor(pa.Table.from_pylist(second))
    (latents,) = drawn
    source, before, after = latents.unflatten(0, (3, 3))
    inside = torch.zeros(latents.shape[-2:], dtype=torch.bool)
    inside[2:4, 8:10] = True
    assert torch.equal(after[..., ~inside], before[..., ~inside])
    assert (after[..., inside] - before[..., inside]).abs().max() > 1e-4
    assert (before - source).abs().max() > 1e-4
    alone = latents_of(editor, pa.Table.from_pylist(first), monkeypatch)
    assert (alone[:, 1] - before).abs().max() < 1e-5, "the turn before is drawn as in its own turn"


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_neighbours(folders, kind):
    editor = stage(folders["sd35"], {**BOTH, "mask": "soft", "blend": 0.5}, control=kind)
    small, large = rows(folders["sd35"], 0, 1, 2, side=4), rows(folders["sd35"], 5, 6, side=12)
    [alone] = editor(small.slice(0, 1)).to_pylist()
    assert editor(pa.concat_tables([small.slice(0, 1), large])).to_pylist()[0] == alone


@pytest.mark.parametrize(
    ("keys", "candidate", "message"),
    [
        ({"control": "qk"}, {}, "edit.control: qk is for transformers; .* is a U-Net: leave it out"),
        ({"blocks": 0.5}, {}, "edit.blocks chooses blocks of a transformer; .* is a U-Net: leave it out"),
        ({}, {"blocks": [1]}, "task local: a candidate's blocks chooses blocks of a transformer"),
    ],
)
def test_unets_refuse_what_chooses_among_a_transformers(tmp_path, keys, candidate, message):
    unet = {"model": str(save_stable_diffusion(tmp_path)), "steps": 3}
    config = Edit.Config.model_validate({"diffusion": unet, "self_max_tokens": 16, **keys})
    assert_refused(config, tasks({"mask": "soft", **candidate}), message)


def test_unets_have_p2p(tmp_path):
    unet = {"model": str(save_stable_diffusion(tmp_path)), "steps": 3}
    config = Edit.Config.model_validate({"diffusion": unet, "self_max_tokens": 16, "control": "p2p"})
    assert list(Edit.problems(config, tasks({"mask": "soft"}))) == []
