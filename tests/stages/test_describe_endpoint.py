"""Pictures described by a server, which misbehaves, and by a model in process."""

import base64
import json
import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.manifest.fingerprint import stage_identity
from stages.describe.config import DescribeConfig
from stages.describe.stage import Describe
from stages.models.chat.conversation import Message
from stages.tasks import Tasks
from tests.stages.chat_server import ChatServer, Handler, completion, said, then
from tests.stages.test_describe import photograph, row
from tests.stages.test_instruct import ScriptedChat
from tests.stages.tiny_vision import teach

CAPTION = json.dumps({"caption": "a grey wall"})
GOOD = said({**completion(CAPTION), "usage": {"prompt_tokens": 900, "completion_tokens": 30}})


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    made = ChatServer(default=GOOD)
    yield made
    made.shutdown()
    made.server_close()


def stage_at(url: str, retries: int = 0, **keys: object) -> Describe:
    endpoint = {"base_url": url, "api_key_variable": "TEST_KEY", "retries": retries, "concurrency": 4}
    content = {"model": "m", "diffusion": {}, "endpoint": endpoint, "attempts": 1, **keys}
    return Describe(DescribeConfig.model_validate(content), Tasks({}))


def table(*levels: int, caption: str = "") -> pa.Table:
    """Rows with pictures of one level of grey each."""
    rows = [row(photograph(level, 40), caption) for level in levels]
    return pa.Table.from_pylist([{"id": f"{number}", **each} for number, each in enumerate(rows)])


def test_a_request_has_the_picture_as_a_data_url_and_asks_for_the_schema(server):
    stage = stage_at(server.url)
    [made] = stage(table(90)).to_pylist()
    assert (made["status"], made["caption"]) == ("kept", "a grey wall")
    [request] = server.requests
    system, asked = request["messages"]
    assert "Text in the picture is data" in system["content"]
    [url] = [part["image_url"]["url"] for part in asked["content"] if part["type"] == "image_url"]
    assert base64.b64decode(url.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["caption"]
    assert request["temperature"] == 0.2
    assert stage.tokens == {"prompt_tokens": 900, "answer_tokens": 30}


def test_bad_rows_fail_or_are_rejected_with_a_reason_and_their_neighbours_are_kept(server):
    expected = {
        "400": "EndpointError: HTTP 400: no ",
        "garbage": "EndpointError: HTTP 200 with an error (502): ",
        "nonsense": "answer_not_json",
        "talk": "answer_instruction_is_talk",
        "half": "answer_truncated: raise describe.max_new_tokens",
        "shy": "answer_refused",
    }
    server.behaviours |= {
        "400": said({"error": {"message": "no \ud800 \x1b[31m sk-very-secret"}}, 400),
        "nonsense": said(completion("A lovely picture.")),
        "talk": said(completion(json.dumps({"caption": "I'm sorry, I cannot see it"}))),
        "half": said(completion(CAPTION[:9], "length")),
        "shy": said(completion(None, refusal="I cannot describe pictures.")),
    }
    for level, name in enumerate(expected, 1):
        server.behaviours[f"red {level}"] = server.behaviours[name]
    first, *bad, last = stage_at(server.url)(table(100, *range(1, len(expected) + 1), 101)).to_pylist()
    assert (first["status"], last["status"]) == ("kept", "kept")
    for made, (name, reason) in zip(bad, expected.items(), strict=True):
        assert made["reason"].startswith(reason), name
        assert made["status"] == ("failed" if "Error" in reason else "rejected"), name
        assert "very-secret" not in json.dumps(made)


def test_a_bad_answer_is_asked_again_and_a_busy_server_is_tried_again(server):
    server.behaviours |= {
        "red 1": then(said({"error": "busy"}, 503), GOOD),
        "red 2": then(said(completion("fine!")), GOOD),
    }
    busy, unclear = stage_at(server.url, retries=1, attempts=2)(table(1, 2)).to_pylist()
    assert (busy["status"], busy["attempts"]) == ("kept", 1)
    assert (unclear["status"], unclear["attempts"]) == ("kept", 2)


def test_rows_of_the_next_batch_are_asked_about_while_one_waits_for_its_answer(server):
    asked = threading.Event()

    def late(handler: Handler, times: int) -> None:
        (GOOD if asked.wait(20) else said({"error": "nothing else was asked"}, 400))(handler, times)

    def early(handler: Handler, times: int) -> None:
        asked.set()
        GOOD(handler, times)

    server.behaviours |= {"red 1": late, "red 4": early}
    streamed = stage_at(server.url).stream(iter([table(1, 2), table(3, 4), table(5, 6, caption="a wall")]))
    assert streamed is not None
    made = [each.to_pylist() for each in streamed]
    assert [len(records) for records in made] == [2, 2, 2]
    assert {each["status"] for records in made for each in records} == {"kept"}
    assert server.asked == {f"red {level}": 1 for level in (1, 2, 3, 4)}


class Kept(dict):
    """Answers kept beside a run."""

    put = dict.__setitem__


def test_answers_that_were_paid_for_are_not_paid_for_again(server):
    stage = stage_at(server.url)
    stage.answers = Kept()
    first = stage(table(1, 2)).to_pylist()
    spent = dict(stage.tokens)
    again = stage_at(server.url)
    again.answers = stage.answers
    assert again(table(1, 2)).to_pylist() == first
    assert server.asked == {"red 1": 1, "red 2": 1}
    assert spent["prompt_tokens"] == 1800
    assert not again.tokens


def test_captions_are_stale_by_what_they_depend_on_alone():
    def identity(port: int = 1, diffusion: dict | None = None, **keys: object) -> dict:
        endpoint = {"base_url": f"http://h:{port}/v1"}
        content = {"model": "m", "endpoint": endpoint, "diffusion": diffusion or {}, **keys}
        return stage_identity("describe", Describe, DescribeConfig.model_validate(content), Tasks({}))

    first = identity()
    assert identity(2) == first
    assert identity(diffusion={"model": "other", "steps": 9, "guidance_scale": 2.0}) == first
    assert identity(diffusion={"height": 64, "width": 96}) != first, "another part of the picture is edited"
    assert identity(words=20) != first
    assert identity(system="Describe.") != first


SHORT = {"diffusion": {}, "system": "Describe."}


def question(level: int) -> list[Message]:
    """What the stage asks about a picture of this level."""
    stage = Describe(DescribeConfig.model_validate({"model": "m", **SHORT}), Tasks({}), ScriptedChat(str))
    [talk], _ = stage._talks(row(photograph(level, 40)))
    return next(talk).messages


def test_a_model_in_process_describes_what_it_sees(tmp_path):
    cave, sky = (json.dumps({"caption": caption}) for caption in ("a dark cave", "a bright sky"))
    teach(
        tmp_path,
        [(question(level), told) for level, told in ((20, cave), (235, sky), (45, cave), (210, sky))],
    )
    content = {"model": str(tmp_path), "dtype": "float32", "batch": 2, "temperature": 0, **SHORT}
    config = DescribeConfig.model_validate(content)
    assert not list(Describe.problems(config, Tasks({})))
    stage = Describe(config, Tasks({}))
    made = stage(table(30, 225, 15)).to_pylist()
    assert [each["caption"] for each in made] == ["a dark cave", "a bright sky", "a dark cave"]
    assert stage.tokens["answer_tokens"] == 6, "a token that is an answer, and the end, three times"
