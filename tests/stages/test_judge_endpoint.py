"""An endpoint that misbehaves: the row fails or is rejected, and no other row is touched."""

import json
import socket
from collections.abc import Iterator

import pytest

from pipeline.manifest.fingerprint import stage_identity
from stages.judge.config import JudgeConfig
from stages.judge.stage import JudgeStage
from stages.models.chat.config import EndpointConfig
from tests.stages.chat_server import DRIPS, ChatServer, completion, hang, said, then
from tests.stages.tiny_sights import TASKS, picture, row, table

MARKS = json.dumps({"reason": "fine", "instruction_following": 5, "consistency": 5, "quality": 5})
GOOD = said({**completion(MARKS), "usage": {"prompt_tokens": 900, "completion_tokens": 30}})


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    made = ChatServer()
    made.behaviours["well"] = GOOD
    yield made
    made.shutdown()
    made.server_close()


def run(url: str, *instructions: str, seconds: float = 60, retries: int = 0, **keys: object) -> list[dict]:
    """Rows of one candidate, judged in one batch."""
    endpoint = EndpointConfig(
        base_url=url, api_key_variable="TEST_KEY", timeout_seconds=seconds, retries=retries
    )
    stage = JudgeStage(JudgeConfig(model="m", endpoint=endpoint, **{"attempts": 1, **keys}), TASKS)
    given = [row(told, candidates=[{"image": picture(20)}]) for told in instructions]
    return stage(table(*given)).to_pylist()


def test_a_request_has_the_pictures_as_data_urls_and_asks_for_the_schema(server):
    [made] = run(server.url, "well")
    assert made["status"] == "kept"
    [request] = server.requests
    parts = request["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert len(urls) == 3
    assert all(url.startswith("data:image/png;base64,iVBORw0KGgo") for url in urls)
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["quality"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert (request["temperature"], request["max_tokens"]) == (0.2, 512)
    assert server.authorizations == ["Bearer sk-very-secret"]


def test_each_kind_of_question_asks_for_its_own_keys(server):
    server.behaviours["well"] = said(
        completion(json.dumps({**json.loads(MARKS), "instruction_following": 1}))
    )
    run(server.url, "well", difference="second", recaption=True)
    assert [request["response_format"]["json_schema"]["name"] for request in server.requests] == [
        "marks",
        "consistency",
        "recaption",
    ]


def test_bad_rows_fail_or_are_rejected_with_a_reason_and_their_neighbours_are_kept(server):
    server.behaviours |= {
        "400": said({"error": {"message": "no \ud800 \x1b[31m sk-very-secret"}}, 400),
        "nonsense": said(completion("The edit is lovely.")),
        "out of range": said(completion(MARKS.replace("5", "9"))),
        "half": said(completion(MARKS[:40], "length")),
        "shy": said(completion(None, refusal="I cannot judge pictures.")),
        "filtered": said(completion("", "content_filter")),
        "deep": said(b'{"choices": ' + b"[" * 500_000),
    }
    expected = {
        "400": "EndpointError: HTTP 400: no ",
        "garbage": "EndpointError: HTTP 200 with an error (502): ",
        "close": "EndpointError: no answer",
        "deep": "EndpointError: HTTP 200 with an error (502): ",
        "nonsense": "answer_not_json",
        "out of range": "answer_not_a_mark",
        "half": "answer_truncated: raise judge.max_new_tokens",
        "shy": "answer_refused",
        "filtered": "answer_content_filter",
    }
    first, *bad, last = run(server.url, "well", *expected, "well")
    assert (first["status"], last["status"]) == ("kept", "kept")
    for made, (name, reason) in zip(bad, expected.items(), strict=True):
        assert made["reason"].startswith(reason), name
        assert made["status"] == ("failed" if "Error" in reason else "rejected"), name
        assert made["attempts"] == 1
        assert "very-secret" not in json.dumps(made)
    assert server.asked == {"well": 2, **dict.fromkeys(expected, 1)}


def test_a_slow_and_a_dripping_server_end_at_the_deadline(server):
    server.behaviours["hang"] = hang
    *late, good = run(server.url, "hang", *DRIPS, "well", seconds=1)
    assert good["status"] == "kept"
    assert [made["status"] for made in late] == ["failed"] * (1 + len(DRIPS))
    assert all("1 s" in made["reason"] or "Timeout" in made["reason"] for made in late), late


def test_what_may_pass_is_tried_again_and_a_bad_answer_is_asked_again(server):
    server.behaviours |= {
        "busy": then(said({"error": "busy"}, 503), GOOD),
        "unclear": then(said(completion("fine!")), GOOD),
    }
    busy, unclear = run(server.url, "busy", "unclear", retries=1, attempts=2)
    assert (busy["status"], busy["attempts"]) == ("kept", 1)
    assert (unclear["status"], unclear["attempts"]) == ("kept", 2)
    assert server.asked == {"busy": 2, "unclear": 2}


def test_a_dead_endpoint_and_an_unset_key_are_named_before_the_run(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.delenv("TEST_KEY", raising=False)
    endpoint = EndpointConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key_variable="TEST_KEY")
    key, dead = JudgeStage.problems(JudgeConfig(model="m", endpoint=endpoint), TASKS)
    assert key.startswith("judge.endpoint.api_key_variable: the environment has no TEST_KEY")
    assert dead.startswith(f"judge.endpoint.base_url: nothing answers at 127.0.0.1, port {port}")
    with pytest.raises(ValueError, match=r"judge\.endpoint\.api_key_variable"):
        run(f"http://127.0.0.1:{port}/v1", "well")
    monkeypatch.setenv("TEST_KEY", "any")
    [made] = run(f"http://127.0.0.1:{port}/v1", "well")
    assert made["status"] == "failed"
    assert "ConnectError" in made["reason"]


def test_where_the_server_is_does_not_make_marks_stale_but_the_wording_does():
    def identity(port: int, **keys: object) -> dict:
        config = JudgeConfig(model="m", endpoint=EndpointConfig(base_url=f"http://h:{port}/v1"), **keys)
        return stage_identity("judge", JudgeStage, config, TASKS)

    first = identity(1)
    assert identity(2) == first
    assert identity(1, difference="none") != first
    other = JudgeConfig(model="m").prompt.model_copy(update={"marks": "Give marks."})
    assert identity(1, prompt=other) != first
