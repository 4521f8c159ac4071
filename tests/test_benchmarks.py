"""Benchmarks run, small: their figures are not tested, that they can be had is."""

import subprocess
import sys

from tests.pipeline.runs import ROOT


def test_engine_benchmark_plans_runs_and_counts():
    command = [sys.executable, "-m", "benchmarks.engine", "--captions", "3000", "--parts", "40"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "plan of 3,000 captions in 12 parts" in result.stdout
    assert "footers of 40 parts, counted" in result.stdout
