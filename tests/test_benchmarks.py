"""Benchmarks run, small: their figures are not tested, that they can be had is."""

import subprocess
import sys
import time

import pyarrow as pa
import torch
from typer.testing import CliRunner

from benchmarks import models
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


def test_large_run_is_built_and_its_commands_measured(tmp_path, monkeypatch):
    command = [sys.executable, "-m", "benchmarks.large_run", "--parts", "3", "--folder", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "report --rows 3000" in result.stdout
    page = tmp_path / "large/report.html"
    assert "drawn by the seed" not in page.read_text()
    state = open_state(tmp_path / "large")
    counts = count_run(state)
    assert not sum(count.pending.total() for count in counts)
    assert counts[0].given.total() == 3 * 256
    monkeypatch.setattr("pipeline.views.outcomes.SAMPLED", 300)
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(app, ["report", str(tmp_path / "large"), "--rows", "20"]).exit_code == 0
    assert "all rows of 2 of 3 parts" in page.read_text()


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
