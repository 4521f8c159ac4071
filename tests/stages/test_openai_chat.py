"""The client against a server on loopback that misbehaves as servers do: what is asked, and asked again."""

import json

import pyarrow as pa
import pytest

from pipeline.manifest.fingerprint import stage_identity
from stages.instruct.prompt import ANSWER_KEYS
from stages.instruct.stage import Instruct, InstructConfig
from stages.models.chat.bounded_client import EndpointError
from stages.models.chat.config import EndpointConfig
from stages.models.chat.conversation import Reply
from stages.models.chat.openai_chat import OpenAIChat
from stages.tasks import Tasks
from tests.stages.chat_server import ANSWER, GOOD, ChatServer, ask_all, completion, said, then_good
from tests.stages.tiny_tasks import tiny_task

KEY = "sk-very-secret"
EXEMPLAR = {"caption": "a car on a beach", **ANSWER}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    made = ChatServer()
    yield made
    made.shutdown()
    made.server_close()


def endpoint(server: ChatServer, **keys) -> EndpointConfig:
    defaults = {"retries": 2, "timeout_seconds": 60, "api_key_variable": "TEST_KEY"}
    return EndpointConfig(base_url=server.url, **{**defaults, **keys})


def chat(server: ChatServer, parameters: dict | None = None, **keys) -> OpenAIChat:
    where = endpoint(server, **keys)
    config = InstructConfig(model="m", endpoint=where, temperature=0.5, parameters=parameters or {})
    return OpenAIChat(config, where, "instruct")


def ask(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_a_request_says_what_the_manifest_says(server):
    assert ask_all(chat(server), ask("ok"), [2**40 + 7]) == [Reply(GOOD)]
    [request] = server.requests
    assert (request["model"], request["temperature"], request["seed"]) == ("m", 0.5, 7)
    assert (request["max_tokens"], request["top_p"]) == (256, 0.9)
    schema = request["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(ANSWER_KEYS)
    assert schema["additionalProperties"] is False
    assert server.authorizations == [f"Bearer {KEY}"]


def test_a_parameter_is_renamed_or_left_out(server):
    changes = {
        "max_tokens": "max_completion_tokens",
        "temperature": None,
        "seed": "",
        "response_format": None,
    }
    assert ask_all(chat(server, changes), ask("ok"), [7]) == [Reply(GOOD)]
    [request] = server.requests
    assert request.keys() == {"model", "messages", "top_p", "max_completion_tokens"}
    assert request["max_completion_tokens"] == 256


@pytest.mark.parametrize(
    "parameters", [{"max_tokens": "seed"}, {"seed": "model"}, {"seed": "x", "top_p": "x"}, {"stop": "x"}]
)
def test_a_parameter_that_makes_no_sense_is_refused(parameters):
    with pytest.raises(ValueError, match="parameters"):
        InstructConfig(model="m", parameters=parameters)


def test_a_refused_parameter_is_named_with_the_key_that_helps(server):
    text = "Unsupported parameter: 'max_tokens' is not supported with this model."
    server.behaviours["refuse"] = said({"error": {"message": text}}, 400)
    [error] = ask_all(chat(server), ask("refuse"), [1])
    assert f"HTTP 400: {text}" in str(error)
    assert "instruct.parameters" in str(error)


def test_what_may_pass_is_tried_again(server):
    assert ask_all(chat(server), ask("500 twice"), [1]) == [Reply(GOOD)]
    assert server.asked["500 twice"] == 3


OVERLOADED = {"message": "the model is overloaded", "code": 503}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": OVERLOADED}, "HTTP 200 with an error (503): the model is overloaded"),
        ({"error": {"message": "busy", "code": "rate_limit"}}, "HTTP 200 with an error (502): busy"),
        ({"error": "busy"}, "HTTP 200 with an error (502): busy"),
        ({"error": True, "message": "busy"}, "HTTP 200 with an error (502): busy"),
        ({"object": "error", "message": "busy", "code": 429}, "HTTP 200 with an error (429): busy"),
        (completion(GOOD, "error"), "HTTP 200 with an error (502)"),
        ({"choices": [{"error": OVERLOADED, "message": {"content": "x"}}]}, "overloaded"),
        ({**completion("half an answ"), "error": OVERLOADED}, "overloaded"),
        ({"detail": "busy"}, "HTTP 200 with an error (502): busy"),
        ({"code": 503, "msg": "busy", "success": False}, "HTTP 200 with an error (503): busy"),
        ({"errors": [{"message": "busy", "status": "429"}]}, "HTTP 200 with an error (429): busy"),
        ([{"error": OVERLOADED}], "HTTP 200 with an error (503): the model is overloaded"),
        ({"id": "1", "choices": []}, "HTTP 200 with an error (502)"),
        (b"<html>the proxy is being mended</html>", "the proxy is being mended"),
        (b"", "an empty body"),
    ],
)
def test_an_error_under_http_200_is_an_error_like_any(server, body, told):
    server.behaviours |= {"once": then_good(said(body)), "ever": said(body)}
    once, ever = ask_all(chat(server, retries=1), ask("once", "ever"), [1, 2])
    assert once == Reply(GOOD)
    assert told in str(ever)
    assert server.asked == {"once": 2, "ever": 2}


def test_a_wrong_request_under_http_200_is_not_asked_again(server):
    server.behaviours["wrong"] = said({"error": {"message": "no such model", "code": 404}})
    [error] = ask_all(chat(server), ask("wrong"), [1])
    assert "no such model" in str(error)
    assert server.asked["wrong"] == 1


def test_an_answer_that_speaks_of_no_error_is_none(server):
    server.behaviours["null"] = said({**completion(GOOD), "error": None})
    server.behaviours["word"] = said(completion("an error"))
    assert ask_all(chat(server), ask("null", "word"), [1, 2]) == [Reply(GOOD), Reply("an error")]


@pytest.mark.parametrize("pause", ["86400", "1e400", "99999999999999999999", "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(server, pause):
    server.behaviours["wait"] = said({"error": {"message": "quota"}}, 429, Retry_After=pause)
    [error] = ask_all(chat(server), ask("wait"), [1])
    assert f"HTTP 429, Retry-After {pause}: quota" in str(error)
    assert server.asked["wait"] == 1


def test_a_bad_row_never_fails_its_neighbours(server):
    bad = ["garbage", "hang", "close", "400", "other json"]
    server.behaviours["400"] = said({"error": {"message": f"no, {KEY}"}}, 400)
    replies = ask_all(chat(server, retries=1, timeout_seconds=3), ask("ok", *bad, "ok"), range(7))
    assert replies[0] == replies[-1] == Reply(GOOD)
    assert all(isinstance(reply, EndpointError) for reply in replies[1:-1]), replies
    assert "{not json" in str(replies[1])
    assert "Timeout" in str(replies[2])
    assert "Disconnected" in str(replies[3]) or "disconnected" in str(replies[3])
    assert "400" in str(replies[4])
    assert server.asked == {"ok": 2, "garbage": 2, "hang": 2, "close": 2, "400": 1, "other json": 2}


def test_the_key_is_in_no_message(server):
    server.behaviours |= {
        "400": said({"error": {"message": f"no, {KEY}"}}, 400),
        "500": said(f"<html>{'x' * 190}{KEY}".encode(), 500),
        "odd": said(f"<html>{'x' * 190}{KEY}".encode()),
        "200": said({"error": KEY}),
    }
    replies = ask_all(chat(server, retries=0), ask("400", "500", "odd", "200"), range(4))
    assert all(KEY[:10] not in str(reply) for reply in replies), replies
    assert str(replies[0]) == "HTTP 400: no, ***"


def test_no_more_requests_at_once_than_allowed(server):
    replies = ask_all(chat(server, concurrency=3), ask(*["slow"] * 12), range(12))
    assert replies == [Reply(GOOD)] * 12
    assert 2 <= server.most_at_once <= 3


def test_a_key_that_is_not_there_is_named(server, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ValueError, match=r"instruct.endpoint.api_key_variable.*no TEST_KEY"):
        chat(server)


@pytest.mark.parametrize("key", ["sk-a\nsk-b", "sk-gehei\u00df", "sk one", "sk-\x00"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(server, monkeypatch, key):
    if "\x00" not in key:
        monkeypatch.setenv("TEST_KEY", key)
    else:
        monkeypatch.setattr("os.environ", {"TEST_KEY": key})
    with pytest.raises(ValueError, match=r"instruct.endpoint.api_key_variable") as raised:
        chat(server)
    assert key[:4] not in str(raised.value)


def test_a_key_with_a_line_end_is_the_key(server, monkeypatch):
    monkeypatch.setenv("TEST_KEY", f"{KEY}\n")
    assert ask_all(chat(server), ask("ok"), [1]) == [Reply(GOOD)]
    assert server.authorizations == [f"Bearer {KEY}"]


def rows(*captions: str) -> pa.Table:
    ids = [str(i) for i in range(len(captions))]
    return pa.table(
        {"id": ids, "caption": captions, "task": ["local"] * len(ids), "seed": list(range(len(ids)))}
    )


def test_the_stage_keeps_good_rows_and_fails_the_others(server):
    """Each row is asked once: a failed request is no answer to ask again about, a good one is paid for."""
    server.behaviours |= {
        "a 400 car on a beach": said({"error": {"message": "no \ud800 \x1b[31m"}}, 400),
        "a dictionary on a beach": said(completion({"a": 1})),
        "a surrogate on a beach": said(completion("\ud800")),
        "a number on a beach": said(completion([5])),
        "a deep car on a beach": said(b'{"choices": ' + b"[" * 500_000),
        "a long car on a beach": said(completion(GOOD[:40], "length")),
        "a shy car on a beach": said(completion(None, refusal="I cannot help with that.")),
    }
    bad = [how for how in server.behaviours if how.endswith("on a beach")]
    stage = Instruct(
        InstructConfig(model="m", endpoint=endpoint(server, retries=0), attempts=1),
        Tasks({"local": tiny_task(exemplars=[EXEMPLAR])}),
    )
    first, *others, last = stage(rows("a car on a beach", *bad, " a car\ton a beach \n")).to_pylist()
    assert (first["status"], last["status"], last["caption"]) == ("kept", "kept", "a car on a beach")
    told = "answer_not_json", "answer_truncated: raise instruct.max_new_tokens", "answer_refused"
    assert [row["reason"] for row in others if row["status"] == "rejected"] == list(told)
    assert [row["status"] for row in others] == ["failed"] * 2 + ["rejected"] + ["failed"] * 2 + [
        "rejected"
    ] * 2
    assert others[0]["reason"].startswith("EndpointError: HTTP 400: no ")
    assert others[-1]["answer"] == "I cannot help with that."
    assert server.asked == {"a car on a beach": 2, **dict.fromkeys(bad, 1)}


def test_where_the_server_is_does_not_make_answers_stale(server):
    tasks = Tasks({"local": tiny_task(exemplars=[EXEMPLAR])})

    def identity(**keys):
        config = InstructConfig(model="m", endpoint=endpoint(server), **keys)
        return stage_identity("instruct", Instruct, config, tasks)

    first = identity()
    server.url = "http://127.0.0.1:1/v1"
    assert identity() == first
    assert identity(temperature=0.1) != first
    assert identity(parameters={"temperature": None}) != first
    assert "TEST_KEY" not in json.dumps(first)
