"""The instruct stage against a real server: ``transformers serve`` with the toybox's language model."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine import generate as engine
from pipeline.engine.ledger import count_run
from pipeline.errors import UserError
from pipeline.manifest.manifest import parse_manifest, read_manifest
from stages import STAGES
from stages.instruct.stage import Instruct, InstructConfig
from stages.models.chat.config import EndpointConfig
from stages.placed import first_turn
from stages.tasks import load_tasks
from tests.pipeline.runs import QUIET, ROOT
from tests.waiting import wait_for

MODEL = "toybox/weights/language_model"


@pytest.fixture(scope="module")
def server():
    """The base URL of a server on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32", "--default-seed", "0", MODEL]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        wait_for(lambda: healthy(port), process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_a_server_writes_the_edits_that_the_model_writes_in_process(server, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TEST_KEY", "any")
    manifest = read_manifest(ROOT / "manifests" / "toybox.yaml", ["instruct.temperature=0"], STAGES)
    tasks = load_tasks(manifest.tasks.prompts, manifest.tasks.exemplars, ["color", "background", "global"])
    endpoint = EndpointConfig(base_url=server, api_key_variable="TEST_KEY", concurrency=2)
    section = manifest.section("instruct", InstructConfig)
    remote = Instruct(section.model_copy(update={"endpoint": endpoint}), tasks)
    local = Instruct(section, tasks)
    captions = (ROOT / "toybox" / "captions.jsonl").read_text().splitlines()[:6]
    rows = pa.table(
        {
            "id": [str(i) for i in range(len(captions))],
            "caption": [json.loads(line)["caption"] for line in captions],
            "task": ["color", "background", "global"] * 2,
            "seed": list(range(len(captions))),
        }
    )
    written, expected = (stage(rows).to_pylist() for stage in (remote, local))
    assert [row["answer"] for row in written] == [row["answer"] for row in expected]
    assert sum(row["status"] == "kept" for row in written) >= 3


def test_a_dead_endpoint_is_named_before_anything_is_paid_for_and_a_live_one_is_used(
    server, monkeypatch, tmp_path
):
    """One message that names the key and the address, nothing written; the same run goes on at another."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TEST_KEY", "any")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    stages = {"instruct": STAGES["instruct"]}

    def generate(base_url: str):
        content = {
            "name": "run",
            "runs": str(tmp_path / "runs"),
            "captions": {"file": "toybox/captions.jsonl"},
            "rows": 6,
            "tasks": {
                "exemplars": "toybox/exemplars",
                "mixture": {"color": 1, "background": 1, "global": 1},
            },
            "instruct": {
                "model": MODEL,
                "max_new_tokens": 96,
                "temperature": 0,
                "endpoint": {
                    "base_url": base_url,
                    "api_key_variable": "TEST_KEY",
                    "retries": 1,
                    "concurrency": 2,
                },
            },
        }
        return engine.generate(
            parse_manifest(content, stages, "test"), first_turn(stages), progress=QUIET, engine="local"
        )

    with pytest.raises(UserError, match=r"instruct\.endpoint\.base_url: nothing answers at 127\.0\.0\.1"):
        generate(dead)
    assert not list((tmp_path / "runs").rglob("0*.parquet"))
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    counts = count_run(generate(server))[0]
    assert counts.pending.total() == counts.failed.total() == 0
    assert counts.kept.total() >= 3
