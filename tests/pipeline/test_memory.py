"""``check`` tells the memory of each stage: weights counted from file headers, activations by formula."""

import pytest

from pipeline.api import chain_of
from pipeline.audit.memory import memory_table
from pipeline.manifest.manifest import read_manifest, tasks_of
from stages import STAGES
from stages.models.diffusion import DiffusionConfig
from stages.models.diffusion.memory import (
    PIXART_COPIES,
    PIXART_TEXT,
    QWEN_COPIES,
    SANA_COPIES,
    SANA_TEXT,
    ZIMAGE_COPIES,
    decoding_bytes,
    joint_bytes,
    sampling_bytes,
    sd3_bytes,
)
from stages.models.weight_files import parameters_in
from tests.pipeline.runs import ROOT

SD = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
}
SDXL = {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
}


@pytest.mark.parametrize(("unet", "side", "counted"), [(SD, 64, 130.3), (SDXL, 128, 316.0)])
def test_the_formula_gives_what_torch_counts(unet, side, counted):
    """MiB a row, by torch.distributed._tools.mem_tracker on fake tensors, in float32."""
    assert sampling_bytes(unet, side * side, 4) / 2**20 == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(("side", "counted"), [(128, 823.6), (64, 279.8)])
def test_the_formula_for_joint_attention_gives_what_torch_counts(side, counted):
    """Counted in the same way, for FLUX.1's widths with two blocks of each kind and 512 tokens of text."""
    flux = {"num_attention_heads": 24, "attention_head_dim": 128}
    assert joint_bytes(flux, side * side // 4 + 512, 4) / 2**20 == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("heads", "copies", "side", "counted"),
    [
        (24, QWEN_COPIES, 128, 748.7),
        (24, QWEN_COPIES, 64, 222.9),
        (30, ZIMAGE_COPIES, 128, 1066.9),
        (30, ZIMAGE_COPIES, 64, 313.2),
    ],
)
def test_the_formula_for_language_models_text_gives_what_torch_counts(heads, copies, side, counted):
    """Counted in the same way, for Qwen-Image and Z-Image with two blocks and 256 tokens of text."""
    network = {"num_attention_heads": heads, "attention_head_dim": 128}
    tokens = side * side // 4 + 256
    assert joint_bytes(network, tokens, 4, copies) / 2**20 == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("width", "copies", "tokens", "counted"),
    [
        (1152, PIXART_COPIES, 4096 + PIXART_TEXT, 222.3),
        (1152, PIXART_COPIES, 1024 + PIXART_TEXT, 60.2),
        (2240, SANA_COPIES, 1024 + SANA_TEXT, 128.0),
        (2240, SANA_COPIES, 256 + SANA_TEXT, 36.0),
    ],
)
def test_the_formula_for_cross_attention_gives_what_torch_counts(width, copies, tokens, counted):
    """Counted in the same way, for PixArt-Sigma and Sana with two blocks and 300 tokens of text."""
    network = {"num_attention_heads": 1, "attention_head_dim": width}
    assert joint_bytes(network, tokens, 4, copies) / 2**20 == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize(
    ("heads", "dual", "side", "counted"),
    [
        (38, [], 128, 508.5),
        (38, [], 64, 138.0),
        (24, [0, 1], 128, 347.2),
        (24, [0, 1], 64, 95.2),
        (24, [], 128, 323.1),
        (24, [], 64, 89.1),
    ],
)
def test_the_formula_for_stable_diffusion_3_gives_what_torch_counts(heads, dual, side, counted):
    """Counted in the same way, for the widths of 3.5 large, 3.5 medium and 3 medium with three blocks."""
    sd3 = {"num_attention_heads": heads, "attention_head_dim": 64, "dual_attention_layers": dual}
    assert sd3_bytes(sd3, side * side // 4, 333, 4) / 2**20 == pytest.approx(counted, rel=0.05)


def test_decoding_takes_four_tensors_of_full_size():
    assert decoding_bytes({"block_out_channels": [128, 256, 512, 512]}, 1024**2, 4) == 4 * 256 * 4 * 1024**2


def table(*overrides):
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", overrides, STAGES)
    stages = chain_of(manifest)
    told = memory_table(stages, manifest.configs(stages), tasks_of(manifest))
    cells = [list(column.cells) for column in told.columns]
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in zip(*cells, strict=True)}


def test_every_stage_with_models_is_told():
    rows = table()
    assert list(rows) == ["instruct", "task_check", "source", "mask", "edit", "score"]
    assert rows["source"][0] == "8"
    assert rows["source"][1].endswith(" MB")
    assert rows["mask"][2] == "not known"


def test_weights_are_counted_in_the_precision_they_are_loaded_in():
    counts = parameters_in(ROOT / "toybox" / "weights" / "diffusion")
    assert set(counts) <= {"F32", "F16", "I64"}
    halved = table("diffusion.dtype=bfloat16")["source"][1]
    assert halved == f"{2 * sum(counts.values()) / 1e6:.0f} MB"


def test_larger_pictures_and_batches_need_more():
    small, large, many = (
        table(*keys)["edit"][2]
        for keys in ((), ("diffusion.height=128", "diffusion.width=192"), ("edit.batch=60",))
    )
    assert int(large.split()[0]) > 5 * int(small.split()[0])
    assert int(many.split()[0]) > 9 * int(small.split()[0])


def test_models_that_are_not_here_are_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert table("diffusion.model=nobody/has-this-model")["source"][1:3] == ["1 not counted", "not known"]


def test_a_variant_is_counted_once(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(6, np.float32)}, tmp_path / "model.safetensors")
    save_file({"a": np.zeros(6, np.float16)}, tmp_path / "model.fp16.safetensors")
    assert parameters_in(tmp_path) == {"F32": 6}
    assert parameters_in(tmp_path, "fp16") == {"F16": 6}
    assert DiffusionConfig(model="m", variant="fp16").variant == "fp16"
