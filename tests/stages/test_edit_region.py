"""``edit.region``: the edit stage computes edits in their regions only."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.models import FAMILIES
from pipeline.manifest.fingerprint import stage_identity
from stages.edit.config import EditConfig
from stages.edit.prompt_to_prompt.alignment import TokenMap
from stages.edit.prompt_to_prompt.control import EditRow, PromptToPrompt
from stages.edit.prompt_to_prompt.gates import cross_gate, self_gate
from stages.edit.sparse.state import Mode
from stages.edit.sparse.unet import SparseUNet
from stages.edit.stage import Edit
from stages.pictures.png import decode_rgb
from stages.tasks import Tasks
from tests.stages.edit_rows import drawn_rows, tasks
from tests.stages.tiny_pipelines import save_sdxl, save_stable_diffusion

SIDE = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"sd": save_stable_diffusion(root / "sd"), "sdxl": save_sdxl(root / "sdxl")}


def diffusion(folder, **keys) -> dict:
    return {"model": str(folder), "steps": 3, "guidance_scale": 3.0, **keys}


def rows(folder, *seeds: int, side: int = 6) -> pa.Table:
    return drawn_rows(diffusion(folder), seeds, (SIDE, SIDE), side)


def stage(folder, own_tasks: Tasks, region: str, **keys) -> Edit:
    config = {"diffusion": diffusion(folder), "batch": 3, "self_max_tokens": 16, "blend_tokens": 16}
    return Edit(Edit.Config.model_validate({**config, "region": region, **keys}), own_tasks)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("region", ["support", "schedule"])
def test_pairs_are_equal_outside_and_differ_inside(folders, family, region):
    table = rows(folders[family], 0, 1, 2)
    edited = stage(folders[family], tasks(), region)(table).to_pylist()
    for record, source in zip(edited, table["source_image"].to_pylist(), strict=True):
        assert record["status"] == "kept"
        anchor, target = (decode_rgb(png) for png in (record["anchor"], record["candidates"][0]["image"]))
        assert (anchor == decode_rgb(source)).all(), "sources are drawn in the source stage's own shape"
        assert record["source_drift"] == 0
        outside = np.ones((SIDE, SIDE), bool)
        outside[1:13, 1:13] = False  # the seam is three pixels wide
        assert (anchor[outside] == target[outside]).all()
        assert (anchor[4:10, 4:10] != target[4:10, 4:10]).any()


def test_a_region_of_the_whole_picture_gives_the_pairs_of_the_dense_path(folders):
    table = rows(folders["sd"], 0, 1, side=12)
    dense, sparse = (
        stage(folders["sd"], tasks(), region)(table).to_pylist() for region in ("whole", "support")
    )
    for first, second in zip(dense, sparse, strict=True):
        pictures = [decode_rgb(each["candidates"][0]["image"]).astype(int) for each in (first, second)]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1, "rounding alone"


def test_a_row_does_not_depend_on_its_neighbours(folders):
    """Its own two candidates differ in mask; its neighbours' regions are larger, or have LocalBlend."""
    candidates = [{"mask": "soft", "cross_until": 0.5}, {"mask": "box", "self_until": 0.5}]
    editor = stage(folders["sd"], tasks(*candidates), "schedule")
    small, large = rows(folders["sd"], 0, 1, 2, side=3), rows(folders["sd"], 5, 6, side=11)
    [alone] = editor(small.slice(0, 1)).to_pylist()
    for others in (small.slice(1), large, large.slice(1)):
        assert editor(pa.concat_tables([small.slice(0, 1), others])).to_pylist()[0] == alone


def test_rows_with_local_blend_are_computed_whole(folders):
    blended = tasks({"mask": "soft", "cross_until": 0.5, "self_until": 0.5, "blend": 0.3})
    table = rows(folders["sd"], 0, 1, 2)
    dense, sparse = (
        stage(folders["sd"], blended, region)(table).to_pylist() for region in ("whole", "schedule")
    )
    for first, second in zip(dense, sparse, strict=True):
        pictures = [decode_rgb(each["candidates"][0]["image"]).astype(int) for each in (first, second)]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1, "rounding alone"
        assert second["source_drift"] == 0


def test_a_run_without_the_key_keeps_its_fingerprint(folders):
    config = {"diffusion": diffusion(folders["sd"])}
    before, after = (
        stage_identity("edit", Edit, EditConfig.model_validate({**config, **keys}), tasks())
        for keys in ({}, {"region": "support", "region_halo": 0.1})
    )
    assert not any("region" in key for key in before if key.startswith("edit."))
    assert (after["edit.region"], after["edit.region_halo"]) == ("support", 0.1)


@pytest.mark.full
def test_compiled_edits_are_the_others_but_for_rounding(folders):
    """By torch's own compiler; rows of one list length, one beside them that is computed whole."""
    both = pa.concat_tables([rows(folders["sd"], 0, 1, side=3), rows(folders["sd"], 2, side=12)])
    torch._dynamo.reset()
    try:
        compiled, plain = (
            stage(folders["sd"], tasks(), "schedule", diffusion=diffusion(folders["sd"], compile=on))(both)
            for on in (True, False)
        )
    finally:
        torch._dynamo.reset()
    for first, second in zip(compiled.to_pylist(), plain.to_pylist(), strict=True):
        pictures = [decode_rgb(each["candidates"][0]["image"]).astype(int) for each in (first, second)]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1


def tensors(stored: object) -> list[torch.Tensor]:
    if isinstance(stored, torch.Tensor):
        return [stored]
    if isinstance(stored, dict | list | tuple):
        inner = stored.values() if isinstance(stored, dict) else stored
        return [tensor for each in inner for tensor in tensors(each)]
    return tensors(vars(stored)) if hasattr(stored, "__dict__") else []


@pytest.mark.parametrize("edits", [pytest.param(1, marks=pytest.mark.full), 4])
def test_a_source_keeps_at_most_200_mb_at_stable_diffusions_shape(edits):
    """In half precision, with guidance, for regions of a quarter of the picture with their halo."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**FAMILIES["sd15"]).half().to(memory_format=torch.channels_last)
        latents, states = torch.empty(2, 4, 64, 64).half(), torch.empty(2, 77, 768).half()
        step = torch.empty((), dtype=torch.long)
    mask = torch.zeros(512, 512)
    mask[64:256, 128:320] = 1
    tokens = TokenMap(torch.eye(77), torch.zeros(77))
    gates = cross_gate(2, 77, (0, 1)), self_gate(2, (0, 1))
    rows = [EditRow(0, tokens, *gates, mask=mask) for _ in range(edits)]
    sparse = SparseUNet(unet, "support", 1 / 16)
    sparse.begin(PromptToPrompt(rows, 1, 2, 256, torch.device("cpu"), torch.float16), (64, 64))
    sparse.state.mode, sparse.state.plan = Mode.SOURCES, sparse.plans[0].to(torch.device("meta"))
    unet(latents, step, states)
    kept = sum(tensor.nbytes for tensor in tensors(sparse.state.memory))
    assert 50e6 < kept < 200e6
