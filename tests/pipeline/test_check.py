import io
import socket

import numpy as np
import pytest
from rich.console import Console

from pipeline.audit.check import Machine, check
from pipeline.errors import UserError
from pipeline.manifest.manifest import read_manifest
from stages import STAGES
from stages.instruct.stage import InstructConfig
from stages.pictures.png import encode_png
from stages.sessions.turns import unrolled
from tests.pipeline.fake_stages import PLACED
from tests.pipeline.runs import MANIFESTS, ROOT

PLENTY = Machine(cpus=8, gpus=1)


def checked(manifest, stages=PLACED, machine=PLENTY, elsewhere=False) -> str:
    out = io.StringIO()
    check(manifest, stages, machine, Console(file=out, width=120), elsewhere=elsewhere)
    return out.getvalue()


def test_before_a_pilot_the_cost_is_not_known_and_nothing_is_written(run):
    text = checked(run.manifest())
    assert "20 captions, up to 20 edits" in text
    assert "diffusion.model" in text
    assert "not known before a pilot" in text
    assert not run.run.exists()


def test_a_pilot_tells_what_the_rest_will_cost(run):
    run.generate("draw.pause=0.1", wave=1)
    lines = {line.split()[0]: line.split() for line in checked(run.manifest("draw.pause=0.1")).splitlines()}
    _, rows, seconds, workers, hours, _ = lines["draw"]
    assert (rows, workers) == ("16", "2")
    assert float(seconds) == pytest.approx(0.1, rel=0.5)
    assert float(hours) == pytest.approx(16 * 0.1 / 2 / 3600, abs=0.01)
    assert lines["About"][2:] == ["pairs", "of", "20", "planned", "edits."]


def test_stages_without_a_pilot_are_named(run):
    run.generate(wave=1)
    text = checked(run.manifest("sieve.default.brightness=0.3"))
    assert "Nothing is known yet of sieve, shards" in text


def test_all_that_is_wrong_is_named_at_once(run):
    manifest = run.manifest(
        "captions.file=none.txt", "diffusion.model=./none", "draw.resources.gpus=2", "write.resources.cpus=9"
    )
    with pytest.raises(UserError) as wrong:
        checked(manifest)
    lines = str(wrong.value).splitlines()
    assert len(lines) == 4
    assert any("captions.file" in line for line in lines)
    assert any("diffusion.model" in line for line in lines)
    assert any("draw.resources.gpus" in line and "--gpus" in line for line in lines)
    assert any("write.resources.cpus" in line and "--cpus" in line for line in lines)


def test_a_cluster_is_not_judged_by_this_machine(run):
    assert checked(run.manifest("draw.resources.gpus=8", "ray.address=head:6379"), elsewhere=True)


def test_a_cluster_that_does_not_answer_is_named_beside_the_rest(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(UserError) as wrong:
        checked(run.manifest("captions.file=none.txt", f"ray.address={closed}"))
    assert "captions.file" in str(wrong.value)
    assert f"ray.address: no Ray cluster can be joined at {closed}" in str(wrong.value)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_shipped_manifests_pass_with_what_they_need_in_place(path, tmp_path, monkeypatch):
    for name in ("prompts", "toybox"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "weights").symlink_to(ROOT / "toybox" / "weights")  # quickstart's downloads
    (tmp_path / "captions.jsonl").write_text('{"caption": "a red cube", "image": "cube.png"}\n')
    (tmp_path / "cube.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    overrides = [f"runs={tmp_path / 'runs'}", "captions.file=captions.jsonl"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        if read_manifest(path, overrides, STAGES).section("instruct", InstructConfig).endpoint:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
            overrides.append(f"instruct.endpoint.base_url={url}")
        manifest = read_manifest(path, overrides, STAGES)
        assert "up to" in checked(manifest, unrolled(1), Machine(cpus=64, gpus=8), elsewhere=True)
