"""What an endpoint cannot do: keep a row waiting, fill the memory, send a caption elsewhere, be a riddle."""

import gzip
import json
import socket
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import UserError
from pipeline.manifest.manifest import read_manifest
from stages import STAGES
from stages.instruct.stage import InstructConfig
from stages.models.chat.address import is_here
from stages.models.chat.bounded_client import MAX_BYTES
from stages.models.chat.completion import CompletionError, error_status, error_text, read_completion
from stages.models.chat.config import EndpointConfig
from stages.models.chat.conversation import Reply
from stages.models.chat.openai_chat import OpenAIChat
from tests.pipeline.runs import ROOT
from tests.stages.chat_server import DRIPS, GOOD, ChatServer, ask_all, bomb, completion, said, then_good


@pytest.fixture(scope="module")
def server():
    made = ChatServer()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")


def complete(url: str, *texts: str, seconds: float = 30, retries: int = 0) -> list[Reply | Exception]:
    where = EndpointConfig(base_url=url, retries=retries, timeout_seconds=seconds)
    chat = OpenAIChat(InstructConfig(model="m", endpoint=where), where, "instruct")
    return ask_all(chat, [[{"role": "user", "content": text}] for text in texts], range(len(texts)))


def test_a_dripping_server_ends_at_the_deadline(server):
    *dripped, good = complete(server.url, *DRIPS, "ok", seconds=1)
    assert good == Reply(GOOD)
    assert ["no whole answer within 1 s" in str(reply) for reply in dripped] == [True] * len(DRIPS), dripped


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "x-gzip", "gzip, gzip"])
def test_an_answer_that_unpacks_to_much_is_refused_at_the_bound(server, encoding):
    server.behaviours["bomb"] = said(bomb(100 << 20), Content_Encoding=encoding)
    complete(server.url, "ok")  # what is imported and cached once does not count
    tracemalloc.start()
    [reply] = complete(server.url, "bomb")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"larger than {MAX_BYTES:,} bytes" in str(reply) or "packed as 'gzip, gzip'" in str(reply)
    assert peak < 10 << 20


def test_an_answer_without_end_is_refused_at_the_bound(server):
    complete(server.url, "ok")
    tracemalloc.start()
    flooded, good = complete(server.url, "flood", "ok")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"larger than {MAX_BYTES:,} bytes" in str(flooded)
    assert good == Reply(GOOD)
    assert peak < 20 << 20


def test_an_answer_of_the_allowed_size_is_read(server):
    long = GOOD + " " * (MAX_BYTES - len(json.dumps(completion(GOOD))))
    server.behaviours |= {"long": said(completion(long)), "longer": said(completion(long + " "))}
    fits, does_not = complete(server.url, "long", "longer")
    assert fits == Reply(long)
    assert "larger than" in str(does_not)


def test_packed_answers_are_read_or_told(server):
    good, strange, wrong = complete(server.url, "packed", "packed strangely", "packed wrongly")
    assert good == Reply(GOOD)
    assert "packed as 'br'" in str(strange)
    assert "incorrect header" in str(wrong)


def test_a_packed_answer_that_breaks_off_is_asked_for_again(server):
    whole = gzip.compress(json.dumps(completion(GOOD)).encode())
    server.behaviours["cut"] = then_good(said(whole[:-20], Content_Encoding="gzip"))
    assert complete(server.url, "cut", retries=1) == [Reply(GOOD)]


def test_no_header_spoils_a_good_answer(server):
    odd = {"Server": "K\xf6ln", "Content-Type": "text/html; charset=utf-16", "Retry-After": "\xb2"}
    server.behaviours["odd"] = said(completion(GOOD), **odd)
    assert complete(server.url, "odd") == [Reply(GOOD)]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(server, status):
    other = ChatServer()
    location = f"{other.url}/chat/completions?token=abcdef"
    server.behaviours["move"] = said(b"", status, Location=location)
    [reply] = complete(server.url, "move", retries=2)
    other.shutdown()
    other.server_close()
    assert not other.requests
    assert f"HTTP {status}: the endpoint redirects to http://127.0.0.1:{other.server_port}" in str(reply)
    assert "instruct.endpoint.base_url" in str(reply)
    assert "abcdef" not in str(reply)


@pytest.mark.parametrize("location", ["", "http://[", "//", "\x01"])
def test_a_redirect_to_nowhere_is_told(server, location):
    server.behaviours["nowhere"] = said(b"", 302, Location=location)
    assert "redirects are not followed" in str(complete(server.url, "nowhere"))


def test_an_answer_that_breaks_off_is_told(server):
    [reply] = complete(server.url, "unread")
    assert "peer closed connection" in str(reply)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_server_on_this_machine_is_reached_without_a_proxy(server, monkeypatch, variable, proxy, host):
    monkeypatch.setenv(variable, proxy)
    assert complete(server.url.replace("127.0.0.1", host), "ok") == [Reply(GOOD)]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "localhost", "a.localhost"]
)
def test_this_machine_has_many_names(host):
    assert is_here(host)
    assert not is_here(f"{host}.example")


def test_a_dead_server_and_a_dead_proxy_are_told_with_their_cause(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [reply] = complete(f"http://127.0.0.1:{port}/v1", "ok")
    assert "ConnectError" in str(reply)
    assert f"('127.0.0.1', {port})" in str(reply)
    assert "proxy" not in str(reply)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    [reply] = complete("http://model.invalid/v1", "ok")
    assert "no answer by the environment's proxy" in str(reply)
    assert f"('127.0.0.1', {port})" in str(reply)


def test_a_proxy_that_cannot_be_used_is_told_at_the_start(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://user:hunter2@x")
    with pytest.raises(ValueError, match=r"instruct\.endpoint\.base_url.*HTTP_PROXY") as raised:
        complete("http://model.invalid/v1", "ok")
    assert "hunter2" not in str(raised.value)


SECRETS = [
    "https://user:hunter2@host/v1",
    "https://hunter2@host/v1",
    "https://host/v1?api_key=hunter2",
    "https://host/v1?hunter2",
    "https://host/v1#hunter2",
    "https://host/v1;token=hunter2",
    "https://host/sk-hunter2hunter2hunter2/v1",
    "https://host/eyJhbGciOiJIUzI1NiJ9.hunter2.hunter2/v1",
    "https:\\\\user:hunter2@host/v1",
    "user:hunter2@host",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_in_the_address_is_refused_and_not_shown(url, tmp_path):
    overrides = [f"instruct.endpoint.base_url={url}", f"runs={tmp_path}"]
    with pytest.raises(UserError, match=r"instruct\.endpoint\.base_url") as raised:
        read_manifest(ROOT / "manifests" / "toybox.yaml", overrides, STAGES)
    assert "hunter2" not in str(raised.value)
    assert "api_key_variable" in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "host/v1", "ftp://host/v1", "http://", "http://host:99999/v1", "http://a b/v1"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValidationError, match="not the address of a server"):
        EndpointConfig(base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1",
        "http://[::1]:8000/v1",
        "https://gateway.ai.example/v1/0123456789abcdef0123456789abcdef/sketch-models/openai/",
        "https://sk-europe-production-cluster.example/v1",
    ],
)
def test_an_address_without_secrets_is_taken(url):
    assert EndpointConfig(base_url=url).base_url == url


@pytest.mark.parametrize("key", ["sk-hunter2", "sk_hunter2", "hunter2", "A B", "", "$KEY"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_shown(key):
    overrides = ["instruct.endpoint.base_url=http://h/v1", f"instruct.endpoint.api_key_variable={key!r}"]
    with pytest.raises(UserError, match=r"instruct\.endpoint\.api_key_variable") as raised:
        read_manifest(ROOT / "manifests" / "toybox.yaml", overrides, STAGES)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (completion(None), Reply("")),
        (completion(None, "length"), Reply("", "truncated")),
        (completion("x", "MAX_TOKENS"), Reply("x", "truncated")),
        (completion("x", "content_filter"), Reply("x", "content_filter")),
        (completion("x", "SAFETY"), Reply("x", "content_filter")),
        (completion("x", "model_context_window_exceeded"), Reply("x", "truncated")),
        (completion("x", "incomplete"), Reply("x", "truncated")),
        (completion("x", "guardrail_intervened"), Reply("x", "content_filter")),
        (completion("x", "eos_token"), Reply("x")),
        (completion({"type": "text", "text": "x"}), Reply("x")),
        (completion(None, None, refusal="no"), Reply("no", "refused")),
        (completion([{"type": "refusal", "refusal": "no"}]), Reply("no", "refused")),
        (completion("x", 5, refusal=""), Reply("x")),
        (
            completion([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}, "y"]),
            Reply("xy"),
        ),
        (completion([]), Reply("")),
    ],
)
def test_a_completion_is_read_with_its_end(body, reply):
    assert read_completion(json.dumps(body).encode()) == reply


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b'{"choices": "\xff"}', "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"null", "no message"),
        (b"{}", "no message"),
        (b'{"choices": []}', "no message"),
        (b'{"choices": {"0": {}}}', "no message"),
        (b'{"choices": [null]}', "no message"),
        (b'{"choices": [{"message": "x"}]}', "no message"),
        (b'{"choices": [{"message": {"content": 5}}]}', "no text"),
        (b'{"choices": [{"message": {"content": [5]}}]}', "no text"),
        (b'{"choices": [{"message": {"content": [{"type": "text"}]}}]}', "no text"),
    ],
)
def test_what_is_no_completion_is_told(body, reason):
    with pytest.raises(CompletionError, match=reason):
        read_completion(body)


KEYS = st.sampled_from(
    ["choices", "message", "content", "refusal", "finish_reason", "error", "code", "type", "text", "object"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["text", "error", "length"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
)


@given(VALUES | VALUES.map(lambda v: completion(v)) | VALUES.map(lambda v: {"choices": [{"message": v}]}))
@example({"error": {"code": 10**400}})
@example({"choices": [{"finish_reason": "error", "message": 5}]})
def test_no_type_anywhere_in_an_answer_is_an_accident(value):
    body = json.dumps(value).encode()
    with suppress(CompletionError):
        assert isinstance(read_completion(body).text, str)
    assert error_status(body) is None or 400 <= error_status(body) < 600
    assert isinstance(error_text(body), str)


@given(st.binary(max_size=50))
def test_no_bytes_are_an_accident(body):
    with pytest.raises(CompletionError):
        read_completion(body)
    assert error_text(body)
