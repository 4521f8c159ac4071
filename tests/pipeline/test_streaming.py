"""Stages that wait for a server: the engine runs them as one stream, and a row at fault costs itself."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine import generate as engine
from pipeline.engine.guarded import Guarded
from pipeline.engine.ledger import count_run
from pipeline.engine.streaming import BrokenStreamError, Flow
from pipeline.errors import StageError, UserError
from pipeline.manifest.manifest import parse_manifest
from stages import STAGES
from stages.base import StageConfig, kept, to_table
from stages.placed import first_turn
from tests.pipeline.runs import QUIET, ROOT
from tests.stages.chat_server import GOOD, ChatServer, Handler, completion, said
from tests.waiting import wait_for


class Reader:
    """A stage that reads ``ahead`` batches further than it yields; rows of ``bad`` raise."""

    schema = pa.schema([("number", pa.int64())])

    def __init__(self, ahead: int, bad: Any = ()) -> None:
        self.ahead, self.bad = ahead, bad
        self.config = StageConfig()
        self.streams = 0
        self.ran: list[int] = []

    def __call__(self, rows: pa.Table) -> pa.Table:
        numbers = rows["number"].to_pylist()
        for number in numbers:
            if number in self.bad:
                raise self.bad[number] if isinstance(self.bad, dict) else ValueError(f"broken {number}")
        self.ran += numbers
        return to_table(rows["id"].to_pylist(), [kept(number=n) for n in numbers], self.schema)

    def stream(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        self.streams += 1
        waiting: list[pa.Table] = []
        for rows in batches:
            waiting.append(self(rows))
            if len(waiting) > self.ahead:
                yield waiting.pop(0)
        yield from waiting


def part(number: int, sizes: list[list[int]]) -> Iterator[pa.Table]:
    first = 100 * number
    for size in sizes[number]:
        numbers = range(first, first + size)
        yield pa.table({"id": [f"row {n}" for n in numbers], "number": pa.array(numbers, pa.int64())})
        first += size


SIZES = st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=5)


@given(SIZES, st.integers(0, 6), st.integers(0, 3), st.sets(st.integers(0, 420), max_size=8))
def test_every_batch_has_its_records_in_order_and_a_bad_row_fails_alone(sizes, ahead, told, bad):
    """Over all parts, however far the stage reads ahead, and however many parts it is told of."""
    stage = Reader(ahead, bad)
    flow = Flow(Guarded("ask", stage, 8), lambda number: part(number, sizes))
    for number in range(len(sizes)):
        after = range(number + 1, min(number + 1 + told, len(sizes)))
        made = list(flow.run(number, len(sizes[number]), after))
        records = [record for table, _ in made for record in table.to_pylist()]
        expected = [n for table in part(number, sizes) for n in table["number"].to_pylist()]
        assert [table.num_rows for table, _ in made] == sizes[number]
        assert [record["id"] for record in records] == [f"row {n}" for n in expected]
        assert [record["status"] for record in records] == [
            "failed" if n in bad else "kept" for n in expected
        ]
        assert all(r["reason"] == f"ValueError: broken {r['id'][4:]}" for r in records if r["reason"])
    if not bad and told:
        assert stage.streams <= 1 + sum(not size for size in sizes)
        assert len(stage.ran) == len(set(stage.ran)), "nothing runs twice"


def test_parts_that_do_not_come_next_after_all_change_nothing():
    stage, sizes = Reader(3), [[2, 2], [2], [3], [1]]
    flow = Flow(Guarded("ask", stage, 8), lambda number: part(number, sizes))
    for number, told in [(0, [1, 2]), (2, [3]), (1, []), (3, [])]:
        made = list(flow.run(number, len(sizes[number]), told))
        assert made[0][0]["id"][0].as_py() == f"row {100 * number}"


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_a_row_that_tries_to_end_the_process_fails_alone(error):
    flow = Flow(Guarded("ask", Reader(1, {1: error}), 8), lambda number: part(number, [[2, 1]]))
    [(first, errors), (second, _)] = flow.run(0, 2)
    assert first["status"].to_pylist() == ["kept", "failed"]
    assert second["status"].to_pylist() == ["kept"]
    assert errors == [error]


def test_an_error_of_reading_the_rows_is_no_rows_fault():
    def read(number: int) -> Iterator[pa.Table]:
        yield from part(0, [[1]])
        raise UserError("write/00000.parquet cannot be believed")

    with pytest.raises(UserError, match="cannot be believed"):
        list(Flow(Guarded("ask", Reader(2), 8), read).run(0, 2))


class Short(Reader):
    def stream(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return islice(super().stream(batches), 1)


class Swapped(Reader):
    def stream(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        return (table.take([1, 0]) for table in super().stream(batches))


@pytest.mark.parametrize("stage", [Short(5), Swapped(0)])
def test_a_stream_that_breaks_the_contract_is_not_believed(stage):
    class Closing:
        def __getattr__(self, name):
            return getattr(stage, name)

        def stream(self, batches):
            yield from stage.stream(batches)

    guarded = Guarded("ask", Closing(), 8)
    with pytest.raises(BrokenStreamError):
        list(guarded.stream(part(0, [[2, 2, 2]])))


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
        "import sys; from pathlib import Path; from tests.pipeline.test_streaming import generate; "
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
