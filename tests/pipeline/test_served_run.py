"""A run that asks a server: killed, interrupted, stopped or changed, it pays for no answer twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import generate as engine
from pipeline.engine.ledger import count_run
from pipeline.errors import StageError, UserError
from pipeline.manifest.manifest import parse_manifest
from stages import STAGES
from stages.placed import first_turn
from tests.pipeline.runs import QUIET, ROOT
from tests.stages.chat_server import GOOD, ChatServer, Handler, completion, said
from tests.waiting import wait_for

CAPTIONS = [f"a car on a beach {n}" for n in range(24)]


def manifest(folder: Path, url: str, **keys: object) -> Any:
    (folder / "captions.txt").write_text("".join(f"{caption}\n" for caption in CAPTIONS))
    content = {
        "name": "run",
        "runs": str(folder / "runs"),
        "captions": {"file": str(folder / "captions.txt")},
        "rows_per_part": 6,
        "tasks": {"mixture": {"local": 1}},
        "instruct": {
            "model": "m",
            "batch": 4,
            "endpoint": {"base_url": url, "api_key_variable": "TEST_KEY", "retries": 0, "concurrency": 5},
            **keys,
        },
    }
    return parse_manifest(content, CHAIN, "test")


CHAIN = {"instruct": STAGES["instruct"]}


def generate(folder: Path, url: str, **keys: object) -> Any:
    return engine.generate(
        manifest(folder, url, **keys), first_turn(CHAIN), progress=QUIET, engine="local", replace=True
    )


def driver(folder: Path, url: str) -> subprocess.Popen:
    """``generate`` in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from tests.pipeline.test_served_run import generate; "
        "generate(Path(sys.argv[1]), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(folder), url]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "runs/run/instruct").glob("*.parquet"))}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("TEST_KEY", "any")
    made = ChatServer()
    yield made
    made.shutdown()
    made.server_close()


class Gate:
    """Lets the first requests through; the others wait until it is opened."""

    def __init__(self, server: ChatServer, first: int) -> None:
        self._server, self._left, self._open = server, first, threading.Event()
        server.default = self._behave

    def _behave(self, handler: Handler, times: int) -> None:
        with self._server.lock:
            self._left -= 1
            passes = self._left >= 0
        if not passes and not self._open.is_set():
            self._open.wait()
        handler.reply(json.dumps(completion(GOOD)).encode())

    def open(self) -> None:
        self._open.set()


def test_a_killed_driver_has_paid_for_what_it_was_told_and_goes_on_to_the_same_bytes(server, tmp_path):
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    gate = Gate(server, first=9)
    process = driver(tmp_path / "killed", server.url)
    answers = tmp_path / "killed/runs/run/answers/instruct"
    wait_for(lambda: sum(len(path.read_bytes().splitlines()) for path in answers.glob("*")) >= 9, process)
    wait_for(lambda: len(server.asked) >= 9 + 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(server.asked) == 9 + 5, "a stream goes on into the next part"
    gate.open()
    asked = server.asked.copy()
    server.asked.clear()
    assert count_run(generate(tmp_path / "killed", server.url))[0].kept.total() == len(CAPTIONS)
    assert len(server.asked) == len(CAPTIONS) - 9
    assert sum(caption in server.asked for caption in asked) == 5, "those that had no answer"
    generate(tmp_path / "whole", server.url)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_an_interrupt_ends_a_run_that_waits_for_a_server(server, tmp_path):
    gate = Gate(server, first=2)
    process = driver(tmp_path, server.url)
    wait_for(lambda: len(server.asked) == 2 + 5, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT
    gate.open()
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    server.asked.clear()
    generate(tmp_path, server.url)
    assert len(server.asked) == len(CAPTIONS) - 2


def test_a_part_that_stops_keeps_its_answers_and_other_settings_pay_for_what_is_new(server, tmp_path):
    for caption in CAPTIONS[7:11]:
        server.behaviours[caption] = said({"error": {"message": "no such model"}}, 404)
    with pytest.raises(StageError, match="most rows of part 1 fail alike: EndpointError: HTTP 404"):
        generate(tmp_path, server.url)
    server.behaviours.clear()
    server.asked.clear()
    generate(tmp_path, server.url)
    assert set(CAPTIONS[7:11]) <= set(server.asked)
    assert not {CAPTIONS[6], CAPTIONS[11]} & set(server.asked), "their answers were there"
    server.asked.clear()
    before = files(tmp_path)
    generate(tmp_path, server.url, attempts=5, max_caption_chars=1000)
    assert not server.asked, "the prompts are the same"
    assert files(tmp_path) != before, "their fingerprints are not"
    generate(tmp_path, server.url, temperature=0.1)
    assert len(server.asked) == len(CAPTIONS)


def test_damaged_answers_are_asked_for_again(server, tmp_path):
    generate(tmp_path, server.url)
    whole = files(tmp_path)
    path = tmp_path / "runs/run/answers/instruct/00001.jsonl"
    content = bytearray(path.read_bytes())
    content[content.index(b"boat")] ^= 1
    path.write_bytes(content)
    server.asked.clear()
    for name in whole:
        (tmp_path / "runs/run/instruct" / name).unlink()
    generate(tmp_path, server.url)
    assert len(server.asked) == 1
    assert files(tmp_path) == whole


def test_answers_that_cannot_be_read_stop_the_run_with_their_path(server, tmp_path):
    generate(tmp_path, server.url)
    path = tmp_path / "runs/run/answers/instruct/00001.jsonl"
    path.unlink()
    path.mkdir()
    (tmp_path / "runs/run/instruct/00001.parquet").unlink()
    with pytest.raises(UserError, match=r"answers/instruct/00001\.jsonl: Is a directory"):
        generate(tmp_path, server.url)
