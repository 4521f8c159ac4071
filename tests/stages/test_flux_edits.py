"""The edit stage on FLUX.1, small and random."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from stages.edit.stage import Edit
from stages.pictures.png import decode_rgb
from stages.tasks import Tasks
from tests.pipeline.runs import ROOT
from tests.stages.compiled import assert_compiled_once
from tests.stages.edit_rows import assert_manifest_suits, assert_refused, drawn_rows, latents_of, tasks
from tests.stages.tiny_pipelines import save_flux, save_stable_diffusion

HEIGHT, WIDTH = 16, 24
HELD: dict = {"hold": "exact", "mask_attention": False}
SPARSE: dict = {**HELD, "region": "schedule", "cheap_candidates": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("flux")
    return {"schnell": save_flux(root / "schnell"), "dev": save_flux(root / "dev", guidance=True)}


def diffusion(folder) -> dict:
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "model": str(folder),
        "sampler": "flow_euler",
        "steps": 3,
        "guidance_scale": 3.5 if folder.name == "dev" else 0.0,
        **size,
    }


def rows(folder, *seeds: int, side: int = 8) -> pa.Table:
    return drawn_rows(diffusion(folder), seeds, (HEIGHT, WIDTH), side)


def stage(folder, own_tasks: Tasks | None = None, **keys) -> Edit:
    config = Edit.Config.model_validate({"diffusion": diffusion(folder), "batch": 3, **keys})
    return Edit(config, own_tasks or tasks())


@pytest.mark.parametrize("kind", ["schnell", "dev"])
def test_pairs_are_equal_outside_and_differ_inside(folders, kind):
    table = rows(folders[kind], 0, 1, 2)
    edited = stage(folders[kind])(table).to_pylist()
    for record in edited:
        assert record["status"] == "kept"
        anchor, target = (decode_rgb(png) for png in (record["anchor"], record["candidates"][0]["image"]))
        assert anchor.shape == (HEIGHT, WIDTH, 3)
        assert record["source_drift"] <= 1 / 255, "the source stage's picture, but for rounding"
        outside = np.ones((HEIGHT, WIDTH), bool)
        outside[1:15, 1:15] = False  # the seam is three pixels wide
        assert (anchor[outside] == target[outside]).all()
        assert (anchor[4:12, 4:12] != target[4:12, 4:12]).any()


def test_an_empty_mask_gives_the_source(folders, monkeypatch):
    """Latents are equal to the bit."""
    table = rows(folders["schnell"], 0, 1, 2, side=0)
    latents = latents_of(stage(folders["schnell"]), table, monkeypatch)
    assert torch.equal(latents[:, 0], latents[:, 1])


def test_the_gate_of_self_attention_is_that_of_the_whole_control(folders, monkeypatch):
    table = rows(folders["schnell"], 0, 1, 2)
    drawn = [
        latents_of(stage(folders["schnell"], tasks({"mask": "none", **gates})), table, monkeypatch)[:, 1]
        for gates in ({}, {"cross_until": 1.0}, {"self_until": 1.0}, {"cross_until": 1.0, "self_until": 1.0})
    ]
    assert torch.equal(drawn[0], drawn[1]), "a window of cross-attention has no meaning here"
    assert torch.equal(drawn[2], drawn[3])
    assert (drawn[0] - drawn[2]).abs().max() > 1e-4


@pytest.mark.full
def test_a_compiled_network_draws_the_same_and_is_compiled_once(folders, monkeypatch):
    folder = folders["dev"]
    table = rows(folder, 0, 1, 2)
    assert_compiled_once(
        lambda compiled: stage(folder, diffusion={**diffusion(folder), "compile": compiled}),
        table,
        monkeypatch,
    )


@pytest.mark.parametrize("keys", [HELD, SPARSE], ids=["whole", "in its region"])
@pytest.mark.parametrize("kind", ["schnell", "dev"])
def test_a_held_edit_has_its_sources_latents_outside(folders, kind, keys, monkeypatch):
    """Equal to the bit; inside it differs, and differs from an edit that is not held."""
    table = rows(folders[kind], 0, 1, 2)
    held = latents_of(stage(folders[kind], **keys), table, monkeypatch)
    outside = torch.ones(held.shape[-2:], dtype=torch.bool)
    outside[2:6, 2:6] = False
    difference = (held[:, 0] - held[:, 1]).abs()
    assert difference[..., outside].max() == 0
    assert difference[..., 2:6, 2:6].max() > 1e-4
    loose = latents_of(stage(folders[kind], mask_attention=False), table, monkeypatch)
    rounding = 1e-5 if keys is SPARSE else 0  # its sources are a batch of their own
    assert (loose[:, 0] - held[:, 0]).abs().max() <= rounding
    assert (loose[:, 1] - held[:, 1]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["schnell", "dev"])
def test_an_edit_computed_in_its_region_is_the_held_edit(folders, kind, monkeypatch):
    """Of two candidates with masks of their own, but for rounding in float32."""
    both = tasks({"mask": "soft", "self_until": 0.5}, {"mask": "box"})
    table, drawn = rows(folders[kind], 0, 1, 2), []
    for keys in (HELD, SPARSE):
        editor = stage(folders[kind], both, **keys)
        model = editor.drawing.model
        with monkeypatch.context() as patched:
            kept = model.sample
            patched.setattr(
                model,
                "sample",
                lambda *given, kept=kept, **named: drawn.append(kept(*given, **named)) or drawn[-1],
            )
            editor(table)
    whole, sparse = drawn
    assert (whole - sparse).abs().max() < 1e-5
    assert (whole[:3] - sparse[3::2]).abs().amax((1, 2, 3)).min() > 1e-4


def test_hold_is_refused_where_it_has_no_meaning(folders, tmp_path):
    settings = {"diffusion": diffusion(folders["schnell"]), "hold": "exact"}
    for keys in ({}, {"mask_attention": False, "fusion": "lerp"}):
        with pytest.raises(ValidationError, match="set mask_attention: false, fusion: schedule"):
            Edit.Config.model_validate({**settings, **keys})
    compiled = {**settings, "mask_attention": False, "diffusion": {**settings["diffusion"], "compile": True}}
    with pytest.raises(ValidationError, match=r"edit\.hold: exact takes the network's layers apart"):
        Edit.Config.model_validate(compiled)
    unet = {"diffusion": {"model": str(save_stable_diffusion(tmp_path)), "steps": 3}, "self_max_tokens": 16}
    config = Edit.Config.model_validate({**unet, "hold": "exact", "mask_attention": False})
    [problem] = Edit.problems(config, tasks())
    assert "edit.hold: exact is for transformers" in problem
    with pytest.raises(ValueError, match=r"edit\.hold: exact is for transformers"):
        Edit(config, tasks())


@pytest.mark.parametrize("keys", [{}, SPARSE], ids=["whole", "in its region"])
def test_a_row_does_not_depend_on_its_neighbours(folders, keys):
    editor = stage(folders["schnell"], **keys)
    small, large = rows(folders["schnell"], 0, 1, 2, side=4), rows(folders["schnell"], 5, 6, side=12)
    [alone] = editor(small.slice(0, 1)).to_pylist()
    for others in (small.slice(1), large, large.slice(1)):
        assert editor(pa.concat_tables([small.slice(0, 1), others])).to_pylist()[0] == alone


@pytest.mark.parametrize(
    ("keys", "candidate", "message"),
    [
        ({"region": "support"}, {}, "edit.region: support does not suit .*, a transformer: set whole"),
        ({"region": "schedule"}, {}, "edit.region: schedule .* set whole, or schedule with edit.hold: exact"),
        ({**HELD, "region": "support"}, {}, "edit.region: support does not suit"),
        (
            {},
            {"control": "refine", "cross_until": 0.5},
            "task local: a candidate has control: refine, which ",
        ),
        ({}, {"cross_until": 0.5, "changed_until": 0.4}, "task local: a candidate has changed_until, which "),
        ({"control": "kv"}, {"changed_weight": 2.0}, "changed_weight, which edit.control: p2p alone has"),
        (
            {"control": "p2p"},
            {"changed_weight": -2.0},
            "task local: a candidate has a negative changed_weight",
        ),
        (
            {"control": "p2p"},
            {"control": "self", "strength": [0, 1]},
            "self, which edit.control: qk has: set",
        ),
        ({"blocks": [1, 4]}, {}, "edit.blocks: .* has the blocks 0 to 3"),
        ({}, {"blocks": [4]}, "task local: a candidate's blocks: .* has the blocks 0 to 3"),
        ({}, {"guidance_scale": 4.0}, "a candidate has guidance_scale, but .* takes no guidance"),
    ],
)
def test_what_does_not_suit_it_is_refused_by_the_check_and_at_loading(folders, keys, candidate, message):
    config = Edit.Config.model_validate({"diffusion": diffusion(folders["schnell"]), "batch": 3, **keys})
    own = tasks({"mask": "soft", **candidate})
    assert_refused(config, own, message)


def test_the_shipped_manifest_suits_it(folders):
    """Its settings pass the checks on a folder of schnell, which those of another family do not."""
    editor = assert_manifest_suits(ROOT / "manifests" / "flux-schnell.yaml", folders["schnell"])
    assert editor.drawing.controlled.joint
