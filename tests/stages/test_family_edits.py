"""The edit stage on the families of test_families, with and without guidance."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages.edit.stage import Edit
from stages.pictures.png import decode_rgb
from stages.tasks import Tasks
from tests.pipeline.runs import ROOT
from tests.stages.drawn_families import KINDS, SIZE
from tests.stages.edit_rows import assert_manifest_suits, assert_refused, drawn_rows, latents_of, tasks

HOLD = {"hold": "exact", "mask_attention": False}
MANIFESTS = {"qwen": "qwen-image", "zimage": "z-image", "pixart": "pixart-sigma", "sana": "sana"}
JOINT = ("qwen", "zimage")
REGION = {**HOLD, "region": "schedule", "cheap_candidates": 1}
REGIONS = {"qwen": ("qk", "p2p", "kv"), "zimage": ("qk", "kv")}
"""Families whose edits can be computed in their regions, and their controls."""
IN_REGIONS = [(kind, control) for kind, controls in REGIONS.items() for control in controls]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: kind.save(root / name) for name, kind in KINDS.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def diffusion(kind: str, folders, guidance: float = 4.0) -> dict:
    size = {"height": SIZE[0], "width": SIZE[1]}
    settings = {"sampler": KINDS[kind].sampler, "steps": 3, "guidance_scale": guidance}
    return {"model": str(folders[kind]), **settings, **size}


def rows(kind: str, folders, *seeds: int, side: int = 8, guidance: float = 4.0, longer: str = "") -> pa.Table:
    return drawn_rows(diffusion(kind, folders, guidance), seeds, SIZE, side, longer)


def stage(kind: str, folders, own_tasks: Tasks | None = None, guidance: float = 4.0, **keys) -> Edit:
    settings = {"diffusion": diffusion(kind, folders, guidance), "batch": 3, **keys}
    return Edit(Edit.Config.model_validate(settings), own_tasks or tasks())


@pytest.mark.parametrize("guidance", [4.0, 0.0])
def test_pairs_are_equal_outside_and_differ_inside(folders, kind, guidance):
    editor = stage(kind, folders, guidance=guidance)
    assert editor.drawing.model.guided is (guidance > 1)
    for record in editor(rows(kind, folders, 0, 1, 2, guidance=guidance)).to_pylist():
        assert record["status"] == "kept"
        anchor, target = (decode_rgb(png) for png in (record["anchor"], record["candidates"][0]["image"]))
        assert anchor.shape == (*SIZE, 3)
        assert record["source_drift"] <= 1 / 255, "the source stage's picture, but for rounding"
        outside = np.ones(SIZE, bool)
        outside[1:15, 1:15] = False  # the seam is three pixels wide
        assert (anchor[outside] == target[outside]).all()
        assert (anchor[4:12, 4:12] != target[4:12, 4:12]).any()


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(kind, keys) for kind in KINDS for keys in ({}, HOLD)] + [(kind, REGION) for kind in REGIONS],
)
def test_an_empty_mask_gives_the_source(folders, kind, keys, monkeypatch):
    """Latents are equal to the bit."""
    table = rows(kind, folders, 0, 1, 2, side=0)
    latents = latents_of(stage(kind, folders, **keys), table, monkeypatch)
    assert torch.equal(latents[:, 0], latents[:, 1])


@pytest.mark.parametrize("guidance", [4.0, 0.0])
def test_a_held_edit_has_its_sources_latents_outside(folders, kind, guidance, monkeypatch):
    """Equal to the bit; inside it differs, and differs from an edit that is not held."""
    table = rows(kind, folders, 0, 1, 2, guidance=guidance)
    held = latents_of(stage(kind, folders, guidance=guidance, **HOLD), table, monkeypatch)
    outside = torch.ones(held.shape[-2:], dtype=torch.bool)
    outside[2:6, 2:6] = False
    difference = (held[:, 0] - held[:, 1]).abs()
    assert difference[..., outside].max() == 0
    assert difference[..., 2:6, 2:6].max() > 1e-4
    loose = latents_of(stage(kind, folders, guidance=guidance, mask_attention=False), table, monkeypatch)
    assert torch.equal(loose[:, 0], held[:, 0])
    assert (loose[:, 1] - held[:, 1]).abs().max() > 1e-6


def test_a_held_edit_with_a_guidance_of_its_own_has_its_sources_latents_outside(folders, kind, monkeypatch):
    table = rows(kind, folders, 0, 1, 2)
    own = tasks({"mask": "soft", "guidance_scale": 7.0})
    held = latents_of(stage(kind, folders, own, **HOLD), table, monkeypatch)
    difference = (held[:, 0] - held[:, 1]).abs()
    difference[..., 2:6, 2:6] = 0
    assert difference.max() == 0


@pytest.mark.parametrize(("kind", "control"), IN_REGIONS)
@pytest.mark.parametrize("guidance", [4.0, 0.0])
def test_an_edit_computed_in_its_region_is_the_held_edit(folders, kind, control, guidance, monkeypatch):
    """But for rounding in float32; outside it has its source's latents to the bit."""
    table = rows(kind, folders, 0, 1, 2, guidance=guidance, longer=" on a beach")
    own = tasks({"mask": "soft", "self_until": 0.7, "cross_until": 0.7})
    held, sparse = (
        latents_of(stage(kind, folders, own, guidance, control=control, **keys), table, monkeypatch)
        for keys in (HOLD, REGION)
    )
    assert 0 < (held - sparse).abs().max() < 1e-5
    difference = (sparse[:, 0] - sparse[:, 1]).abs()
    assert difference[..., 2:6, 2:6].max() > 1e-4
    difference[..., 2:6, 2:6] = 0
    assert difference.max() == 0.0


@pytest.mark.parametrize("kind", REGIONS)
def test_an_edit_with_local_blend_is_drawn_whole_beside_regions(folders, kind, monkeypatch):
    table, own = rows(kind, folders, 0, 1, 2), tasks({"mask": "soft", "self_until": 0.7, "blend": 0.5})
    held, sparse = (
        latents_of(stage(kind, folders, own, **keys), table, monkeypatch) for keys in (HOLD, REGION)
    )
    assert torch.equal(held, sparse)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(kind, keys) for kind in KINDS for keys in ({}, HOLD)] + [(kind, REGION) for kind in REGIONS],
)
def test_a_row_does_not_depend_on_its_neighbours(folders, kind, keys):
    """Whose captions and masks are others."""
    editor = stage(kind, folders, **keys)
    small = rows(kind, folders, 0, 1, 2, side=4)
    large = rows(kind, folders, 5, 6, side=12, longer=" on a red car on a blue ball" * 4)
    [alone] = editor(small.slice(0, 1)).to_pylist()
    for others in (small.slice(1), large):
        assert editor(pa.concat_tables([small.slice(0, 1), others])).to_pylist()[0] == alone


@pytest.mark.parametrize(
    "keys", [{"region": "support"}, {"region": "schedule"}, {"region": "support", **HOLD}]
)
def test_a_region_that_does_not_suit_it_is_refused_by_the_check_and_at_loading(folders, kind, keys):
    message = f"edit.region: {keys['region']} .* transformer: set whole"
    if kind in REGIONS:
        message += ", or schedule with edit.hold: exact"
    config = Edit.Config.model_validate({"diffusion": diffusion(kind, folders), "batch": 3, **keys})
    assert_refused(config, tasks({"mask": "soft"}), message)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(REGIONS)))
def test_a_family_without_regions_refuses_them_under_the_hold_too(folders, kind):
    config = Edit.Config.model_validate({"diffusion": diffusion(kind, folders), "batch": 3, **REGION})
    assert_refused(config, tasks({"mask": "soft"}), "edit.region: schedule is not yet .* set whole")


def test_the_shipped_manifest_suits_it(folders, kind):
    editor = assert_manifest_suits(ROOT / "manifests" / f"{MANIFESTS[kind]}.yaml", folders[kind])
    assert (editor.drawing.controlled.joint is not None) is (kind in JOINT)
