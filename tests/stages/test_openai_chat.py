"""The client against a server on loopback that misbehaves as servers do."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from pipeline.fingerprint import stage_identity
from stages.instruct import EndpointConfig, Instruct, InstructConfig
from stages.instruct.openai_chat import EndpointError, OpenAIChat
from stages.instruct.prompt import ANSWER_KEYS
from stages.tasks import Tasks
from tests.stages.tiny_tasks import tiny_task

KEY = "sk-very-secret"
ANSWER = {
    "edit": "change the car into a boat",
    "edited_object": "a boat",
    "output_caption": "a boat on a beach",
    "original_object": "a car",
}
EXEMPLAR = {"caption": "a car on a beach", **ANSWER}


class Server:
    """Answers by what the last message says, such as ``ok``, ``500 twice``, ``garbage`` or ``hang``."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.requests: list[dict] = []
        self.headers: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with outer.lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    outer.answer(self)
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def log_message(self, *_) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        how = body["messages"][-1]["content"]
        with self.lock:
            self.requests.append(body)
            self.headers.append(handler.headers["Authorization"])
            self.asked[how] += 1
            times = self.asked[how]
        if how == "hang":
            time.sleep(3)
        elif how == "close":
            handler.connection.close()
            return
        status, reply = 200, json.dumps(completion(json.dumps(ANSWER)))
        if how == "500 twice" and times <= 2:
            status = 500
        elif how == "400":
            status, reply = 400, json.dumps({"error": {"message": f"no, {KEY}"}})
        elif how == "garbage":
            reply = "{not json"
        elif how == "other json":
            reply = json.dumps(["surprise"])
        elif how == "slow":
            time.sleep(0.1)
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(reply)))
            handler.end_headers()
            handler.wfile.write(reply.encode())
        except OSError:
            pass  # the client had enough


def completion(text: str) -> dict:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    made = Server()
    yield made
    made.http.shutdown()


def endpoint(server: Server, **keys) -> EndpointConfig:
    defaults = {"retries": 2, "timeout_seconds": 1, "api_key_variable": "TEST_KEY"}
    return EndpointConfig(base_url=server.url, **{**defaults, **keys})


def chat(server: Server, **keys) -> OpenAIChat:
    where = endpoint(server, **keys)
    return OpenAIChat(InstructConfig(model="m", endpoint=where, temperature=0.5), where)


def ask(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_a_request_says_what_the_manifest_says(server):
    assert chat(server).complete(ask("ok"), [2**40 + 7]) == [json.dumps(ANSWER)]
    [request] = server.requests
    assert (request["model"], request["temperature"], request["seed"]) == ("m", 0.5, 7)
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(ANSWER_KEYS)
    assert schema["additionalProperties"] is False
    assert server.headers == [f"Bearer {KEY}"]


def test_what_may_pass_is_tried_again(server):
    assert chat(server).complete(ask("500 twice"), [1]) == [json.dumps(ANSWER)]
    assert server.asked["500 twice"] == 3


def test_a_bad_row_never_fails_its_neighbours(server):
    bad = ["garbage", "hang", "close", "400", "other json"]
    replies = chat(server, retries=1).complete(ask("ok", *bad, "ok"), range(7))
    assert replies[0] == replies[-1] == json.dumps(ANSWER)
    assert all(isinstance(reply, EndpointError) for reply in replies[1:-1]), replies
    assert "Timeout" in str(replies[2])
    assert "Connection" in str(replies[3])
    assert "400" in str(replies[4])
    assert server.asked["400"] == 1, "a wrong request is not asked again"
    assert server.asked["hang"] == 2


def test_the_key_is_in_no_message(server):
    [reply] = chat(server).complete(ask("400"), [1])
    assert KEY not in str(reply)
    assert "***" in str(reply)


def test_no_more_requests_at_once_than_allowed(server):
    replies = chat(server, concurrency=3, timeout_seconds=10).complete(ask(*["slow"] * 12), range(12))
    assert replies == [json.dumps(ANSWER)] * 12
    assert 2 <= server.most_at_once <= 3


def test_a_key_that_is_not_there_is_named(server, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ValueError, match=r"instruct.endpoint.api_key_variable.*no TEST_KEY"):
        chat(server)


def test_the_stage_keeps_good_rows_and_fails_the_others(server, monkeypatch):
    """Captions reach the server as JSON; here the server is told what to do by them."""
    task = tiny_task(exemplars=[EXEMPLAR])
    where = endpoint(server, retries=0)
    stage = Instruct(InstructConfig(model="m", endpoint=where, attempts=3), Tasks({"local": task}))
    original = server.answer

    def by_caption(handler):
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(raw)
        caption = json.loads(body["messages"][-1]["content"])["caption"]
        body["messages"][-1]["content"] = "400" if "broken" in caption else "ok"
        content = json.dumps(body).encode()
        handler.headers.replace_header("Content-Length", str(len(content)))
        handler.rfile = type("Body", (), {"read": lambda self, n: content})()
        original(handler)

    server.answer = by_caption
    rows = [("1", "a car on a beach"), ("2", "a broken car on a beach"), ("3", "a car on a beach")]
    table = pa.table(
        {
            "id": [row[0] for row in rows],
            "caption": [row[1] for row in rows],
            "task": ["local"] * 3,
            "seed": [1, 2, 3],
        }
    )
    records = stage(table).to_pylist()
    assert [record["status"] for record in records] == ["kept", "failed", "kept"]
    assert records[1]["reason"].startswith("EndpointError: ")
    assert server.asked["400"] == 1, "a failed request is not an answer to ask again about"


def test_where_the_server_is_does_not_make_answers_stale(server):
    tasks = Tasks({"local": tiny_task(exemplars=[EXEMPLAR])})

    def identity(**keys):
        config = InstructConfig(model="m", endpoint=endpoint(server), **keys)
        return stage_identity("instruct", Instruct, config, tasks)

    first = identity()
    server.url = "http://127.0.0.1:1/v1"
    assert identity() == first
    assert identity(temperature=0.1) != first
    assert "TEST_KEY" not in json.dumps(first)
