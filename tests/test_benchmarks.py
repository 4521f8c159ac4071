"""Benchmarks run, small: their figures are not tested, that they can be had is."""

import re
import subprocess
import sys
import time

import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from benchmarks import attention, chain, large_run, models
from benchmarks.server_use import SimulatedServer, in_rounds, streamed
from benchmarks.stages import Clock
from pipeline.cli import app
from pipeline.engine.ledger import count_run
from pipeline.views.run import open_state
from tests.pipeline.runs import ROOT


def test_engine_benchmark_plans_runs_and_counts():
    command = [sys.executable, "-m", "benchmarks.engine", "--captions", "3000", "--parts", "40"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "plan of 3,000 captions in 12 parts" in result.stdout
    assert "footers of 40 parts, counted" in result.stdout


def test_large_run_is_built_and_its_commands_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["large_run", "--parts", "3", "--folder", str(tmp_path)])
    large_run.main()
    assert "report --rows 3000" in capsys.readouterr().out
    page = tmp_path / "large/report.html"
    assert "drawn by the seed" not in page.read_text()
    state = open_state(tmp_path / "large")
    counts = count_run(state)
    assert not sum(count.pending.total() for count in counts)
    assert counts[0].given.total() == 3 * 256
    monkeypatch.setattr("pipeline.views.outcomes.SAMPLED", 300)
    assert CliRunner().invoke(app, ["report", str(tmp_path / "large"), "--rows", "20"]).exit_code == 0
    assert "all rows of 2 of 3 parts" in page.read_text()


@pytest.mark.parametrize(("family", "control"), [("flux", "qk"), ("sd3", "p2p")])
def test_held_edits_of_a_transformer_are_timed(family, control, monkeypatch, capsys):
    small = {"layers": 3, "heads": 1, "head": 32, "side": 8, "text": 8, "edits": 2, "rounds": 1}
    options = [each for name, value in small.items() for each in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["attention", "--family", family, "--control", control, *options])
    attention.main()
    shown = capsys.readouterr().out
    assert f"{family}, {control}: 1 source, 2 edits; 64 tokens" in shown
    assert "0.5" in shown


def test_model_time_is_that_of_outermost_modules():
    class Slow(torch.nn.Module):
        def forward(self, inner: bool) -> None:
            time.sleep(0.05)
            if inner:
                Slow()(False)

    class Stage:
        def __call__(self, rows: pa.Table) -> pa.Table:
            time.sleep(0.1)
            Slow()(True)
            return rows

    clock, before = Clock(), torch.nn.Module.__call__
    clock.timed(Stage)()(pa.table({"id": ["a", "b"]}))
    assert torch.nn.Module.__call__ is before
    assert clock.rows == 2
    assert 0.1 <= clock.models < clock.calls - 0.09


def test_a_family_takes_a_batch(monkeypatch):
    tiny = {"sample_size": 16, "block_out_channels": (32, 32, 64, 64), "attention_head_dim": 8}
    published = models.FAMILIES["sdxl"]
    sdxl = {
        **published,
        "sample_size": 16,
        "block_out_channels": (32, 32, 64),
        "transformer_layers_per_block": 1,
        "attention_head_dim": (2, 2, 4),
    }
    monkeypatch.setattr(models, "FAMILIES", {"sd15": {**tiny, "cross_attention_dim": 24}, "sdxl": sdxl})
    for family in models.FAMILIES:
        model, inputs = models.build(family, torch.device("cpu"), torch.float32)
        assert models.step(model, inputs, 3)().shape == (3, 4, 16, 16)


def test_server_use_counts_the_use_of_slots_by_the_real_stage():
    before, after = (SimulatedServer(16, 0.35, 0.05) for _ in range(2))
    in_rounds(before, 320, 32, attempts=3)
    assert streamed(after, 320, 32, 32, attempts=3) == 320
    assert before.most <= 16
    assert after.most == 16
    assert before.use < 0.6 < 0.9 < after.use


def test_chain_is_measured_from_captions_to_shards(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["chain", "--pairs", "2", "--batch", "2"])
    chain.main()
    printed = capsys.readouterr().out
    assert "2 pairs in" in printed
    for work in ("U-Net", "VAE", "text encoders", "detector", "segmenter", "CLIP", "PNG", "parquet"):
        assert re.search(rf"{work} +│ +\d", printed), work
    assert "shards     2 rows" in printed


@pytest.mark.full
def test_the_u_net_is_compiled_once_by_each_stage(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["chain", "--pairs", "4", "--batch", "2", "--compile"])
    chain.main()
    told = re.findall(r"compiled 1 graph of the U-Net, at call 1 of 20 \(10 calls", capsys.readouterr().out)
    assert len(told) == 2
