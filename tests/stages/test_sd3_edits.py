"""The edit stage on Stable Diffusion 3 and 3.5, small and random, with and without guidance."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.edit.stage import Edit
from stages.pictures.png import decode_rgb
from stages.tasks import Tasks
from tests.pipeline.runs import ROOT
from tests.stages.compiled import assert_compiled_once
from tests.stages.edit_rows import assert_manifest_suits, assert_refused, drawn_rows, latents_of, tasks
from tests.stages.test_flux_edits import HEIGHT, WIDTH
from tests.stages.tiny_pipelines import save_sd3

HOLD = {"hold": "exact", "mask_attention": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd3")
    return {"sd3": save_sd3(root / "sd3", dual=False), "sd35": save_sd3(root / "sd35")}


def diffusion(folder, guidance: float = 4.0) -> dict:
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "model": str(folder),
        "sampler": "flow_euler",
        "steps": 3,
        "guidance_scale": guidance,
        **size,
    }


def rows(folder, *seeds: int, side: int = 8, guidance: float = 4.0) -> pa.Table:
    return drawn_rows(diffusion(folder, guidance), seeds, (HEIGHT, WIDTH), side)


def stage(folder, own_tasks: Tasks | None = None, guidance: float = 4.0, **keys) -> Edit:
    config = Edit.Config.model_validate({"diffusion": diffusion(folder, guidance), "batch": 3, **keys})
    return Edit(config, own_tasks or tasks())


@pytest.mark.parametrize("guidance", [4.0, 0.0])
@pytest.mark.parametrize("kind", ["sd3", "sd35"])
def test_pairs_are_equal_outside_and_differ_inside(folders, kind, guidance):
    editor = stage(folders[kind], guidance=guidance)
    assert editor.drawing.model.guided is (guidance > 1)
    for record in editor(rows(folders[kind], 0, 1, 2, guidance=guidance)).to_pylist():
        assert record["status"] == "kept"
        anchor, target = (decode_rgb(png) for png in (record["anchor"], record["candidates"][0]["image"]))
        assert anchor.shape == (HEIGHT, WIDTH, 3)
        assert record["source_drift"] <= 1 / 255, "the source stage's picture, but for rounding"
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[1:15, 1:15] = False  # the seam is three pixels wide
        assert (anchor[outside] == target[outside]).all()
        assert (anchor[4:12, 4:12] != target[4:12, 4:12]).any()


@pytest.mark.parametrize("keys", [{}, HOLD])
def test_an_empty_mask_gives_the_source(folders, keys, monkeypatch):
    """Latents are equal to the bit."""
    table = rows(folders["sd35"], 0, 1, 2, side=0)
    latents = latents_of(stage(folders["sd35"], **keys), table, monkeypatch)
    assert torch.equal(latents[:, 0], latents[:, 1])


@pytest.mark.parametrize("guidance", [4.0, 0.0])
@pytest.mark.parametrize("kind", ["sd3", "sd35"])
def test_a_held_edit_has_its_sources_latents_outside(folders, kind, guidance, monkeypatch):
    """Equal to the bit; inside it differs, and differs from an edit that is not held."""
    table = rows(folders[kind], 0, 1, 2, guidance=guidance)
    held = latents_of(stage(folders[kind], guidance=guidance, **HOLD), table, monkeypatch)
    outside = torch.ones(held.shape[-2:], dtype=torch.bool)
    outside[2:6, 2:6] = False
    difference = (held[:, 0] - held[:, 1]).abs()
    assert difference[..., outside].max() == 0
    assert difference[..., 2:6, 2:6].max() > 1e-4
    loose = latents_of(stage(folders[kind], guidance=guidance, mask_attention=False), table, monkeypatch)
    assert torch.equal(loose[:, 0], held[:, 0])
    assert (loose[:, 1] - held[:, 1]).abs().max() > 1e-6


def test_a_held_edit_with_a_guidance_of_its_own_has_its_sources_latents_outside(folders, monkeypatch):
    table = rows(folders["sd35"], 0, 1, 2)
    own = tasks({"mask": "soft", "guidance_scale": 7.0})
    held = latents_of(stage(folders["sd35"], own, **HOLD), table, monkeypatch)
    difference = (held[:, 0] - held[:, 1]).abs()
    difference[..., 2:6, 2:6] = 0
    assert difference.max() == 0


def test_the_gate_of_self_attention_is_that_of_the_whole_control(folders, monkeypatch):
    table = rows(folders["sd35"], 0, 1, 2)
    drawn = [
        latents_of(stage(folders["sd35"], tasks({"mask": "none", **gates})), table, monkeypatch)[:, 1]
        for gates in ({}, {"cross_until": 1.0}, {"self_until": 1.0})
    ]
    assert torch.equal(drawn[0], drawn[1]), "a window of cross-attention has no meaning here"
    assert (drawn[0] - drawn[2]).abs().max() > 1e-4


@pytest.mark.full
@pytest.mark.parametrize("kind", ["qk", "p2p", "kv"])
def test_a_compiled_network_draws_the_same_and_is_compiled_in_its_first_batch(folders, monkeypatch, kind):
    folder = folders["sd35"]
    table = rows(folder, 0, 1, 2)
    assert_compiled_once(
        lambda compiled: stage(folder, control=kind, diffusion={**diffusion(folder), "compile": compiled}),
        table,
        monkeypatch,
        by_gates=kind == "p2p",
    )


def test_a_row_does_not_depend_on_its_neighbours(folders):
    editor = stage(folders["sd35"])
    small, large = rows(folders["sd35"], 0, 1, 2, side=4), rows(folders["sd35"], 5, 6, side=12)
    [alone] = editor(small.slice(0, 1)).to_pylist()
    for others in (small.slice(1), large):
        assert editor(pa.concat_tables([small.slice(0, 1), others])).to_pylist()[0] == alone


@pytest.mark.parametrize(
    ("keys", "candidate", "message"),
    [
        ({"region": "support"}, {}, "edit.region: support .* transformer: set whole"),
        ({"region": "schedule"}, {}, "edit.region: schedule .* set whole, or schedule with edit.hold: exact"),
        (
            {},
            {"control": "replace", "cross_until": 0.5},
            "a candidate has control: replace, which edit.control: p2p alone has: set that, or leave it out",
        ),
        ({}, {"blocks": [0, 3]}, "task local: a candidate's blocks: .* has the blocks 0 to 2"),
    ],
)
def test_what_does_not_suit_it_is_refused_by_the_check_and_at_loading(folders, keys, candidate, message):
    config = Edit.Config.model_validate({"diffusion": diffusion(folders["sd35"]), "batch": 3, **keys})
    own = tasks({"mask": "soft", **candidate})
    assert_refused(config, own, message)


def test_the_shipped_manifest_suits_it(folders):
    editor = assert_manifest_suits(ROOT / "manifests" / "sd35.yaml", folders["sd35"])
    assert editor.drawing.model.guided
