"""The wheel, built and installed: it has its data, and makes pairs in an empty folder."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas
import pytest

from pipeline.manifest.fingerprint import fingerprint, stage_identity
from pipeline.manifest.lockfile import locked_steps, read_lock
from pipeline.manifest.manifest import read_manifest, tasks_of
from stages import STAGES
from stages.base import StageConfig
from stages.sessions.turns import unrolled
from tests.toybox_runs import ROOT

FEW = ["rows=2", "rows_per_part=2", "diffusion.steps=10", "tasks.mixture={sketch: 1, color: 1}"]
FEW += [f"{stage}.batch={rows}" for stage, rows in (("source", 2), ("mask", 2), ("edit", 1), ("score", 2))]
"""A batch is filled with copies, which cost as much as rows."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_all_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split():
        top = name.split("/")[0]
        if top in ("editor", "editpairs", "pipeline", "stages") or (
            top == "toybox" and not name.endswith((".md", ".png"))
        ):
            assert name in names
        if top in ("prompts", "manifests"):
            assert f"editpairs/{name}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "editor",
        "editpairs",
        "pipeline",
        "stages",
        "toybox",
    }


def test_the_installed_wheel_makes_pairs_in_an_empty_folder(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*install, str(site), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def call(*arguments: str) -> str:
        command = [sys.executable, str(site / "bin" / "editpairs"), *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    settings = [part for key in FEW for part in ("--set", key)]
    call("generate", "toybox", "--engine", "local", "--quiet", *settings)
    pairs = pandas.read_parquet(work / "runs" / "toybox" / "shards")
    assert len(pairs) > 0
    assert json.loads(call("status", "runs/toybox", "--json"))["pairs"] == len(pairs)

    lock = work / "runs" / "toybox" / "manifest.lock.yaml"
    assert str(site) not in lock.read_text(encoding="utf-8"), "nothing depends on where the wheel lies"
    assert {step.name: step.fingerprint for step in locked_steps(read_lock(lock))} == fingerprints_here()


def fingerprints_here() -> dict[str, str]:
    """Of the same manifest in this clone."""
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", FEW, STAGES)
    tasks = tasks_of(manifest)
    return {
        name: fingerprint(
            stage_identity(placed.name, placed.stage, manifest.section(placed.name, StageConfig), tasks)
        )
        for name, placed in unrolled(1).items()
    }
