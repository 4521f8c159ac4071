"""A server on loopback that answers as the last message of a request, or a text quoted in it, says: badly."""

import base64
import gzip
import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from stages.instruct.prompt import ANSWER_SCHEMA
from stages.models.chat.attempts import Talk, converse
from stages.models.chat.conversation import Message, Question, Reply
from stages.models.chat.openai_chat import OpenAIChat
from stages.pictures.png import decode_rgb


def ask_all(
    chat: OpenAIChat, conversations: Sequence[list[Message]], seeds: Sequence[int]
) -> list[Reply | Exception]:
    """The reply to each conversation, or its error; all are asked on one line."""

    def talk(messages: list[Message], seed: int) -> Talk[Reply | Exception]:
        return (yield Question(messages, seed, ANSWER_SCHEMA))

    talks = enumerate(map(talk, conversations, seeds))
    with chat.opened() as line:
        replies = dict(converse(line, talks))
    return [replies[number] for number in range(len(conversations))]


ANSWER = {
    "edit": "change the car into a boat",
    "edited_object": "a boat",
    "output_caption": "a boat on a beach",
    "original_object": "a car",
}
GOOD = json.dumps(ANSWER)


def completion(content: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion with one choice."""
    spoken = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "finish_reason": finish, "message": spoken}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


Behaviour = Callable[["Handler", int], None]
"""Answers a request, given how often it was asked before, from 1."""


class Handler(BaseHTTPRequestHandler):
    server: "ChatServer"
    body: dict[str, Any]
    """Of the request."""

    def do_POST(self) -> None:
        body = self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        how = _asked_for(body["messages"][-1]["content"])
        # An OSError: the client had enough.
        with self.server.counted(body, how, self.headers["Authorization"]) as times, suppress(OSError):
            self.server.behaviours.get(how, self.server.default)(self, times)

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        for name, value in sent.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _asked_for(message: str | list[dict[str, Any]]) -> str:
    """The caption of a question of instruct, the instruction of one of the judge, or the message itself.

    Of a question of describe, the red of the picture's first pixel: ``red 90``.
    """
    if isinstance(message, list):
        quoted = message[0]["text"].partition("{")[2]
        if not quoted:
            return f"red {pictures_in(message)[0][0, 0, 0]}"
        return json.JSONDecoder().raw_decode(f"{{{quoted}")[0]["instruction"]
    try:
        return json.loads(message)["caption"]
    except (ValueError, TypeError):
        return message


def pictures_in(message: list[dict[str, Any]]) -> list[np.ndarray]:
    """The pictures of a message, uint8 [H,W,3]."""
    urls = [part["image_url"]["url"] for part in message if part["type"] == "image_url"]
    return [decode_rgb(base64.b64decode(url.partition(",")[2])) for url in urls]


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, default: Behaviour | None = None, port: int = 0, **behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.default = default or said(completion(GOOD))
        self.behaviours: dict[str, Behaviour] = {**BEHAVIOURS, **behaviours}
        self.asked: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def counted(self, body: dict[str, Any], how: str, authorization: str) -> "Asked":
        with self.lock:
            self.requests.append(body)
            self.authorizations.append(authorization)
            self.asked[how] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            return Asked(self, self.asked[how])


class Asked:
    """A request under way."""

    def __init__(self, server: ChatServer, times: int) -> None:
        self.server, self.times = server, times

    def __enter__(self) -> int:
        return self.times

    def __exit__(self, *_: Any) -> None:
        with self.server.lock:
            self.server.at_once -= 1


def said(content: Any, status: int = 200, **headers: str) -> Behaviour:
    """JSON, or bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda handler, times: handler.reply(body, status, **headers)


def then(behaviour: Behaviour, after: Behaviour, often: int = 1) -> Behaviour:
    return lambda handler, times: (behaviour if times <= often else after)(handler, times)


def then_good(behaviour: Behaviour, often: int = 1) -> Behaviour:
    return then(behaviour, said(completion(GOOD)), often)


def raw(start: bytes, drop: bytes, pause: float = 0.05) -> Behaviour:
    """``start``, then ``drop`` again and again until the client goes away."""

    def behave(handler: Handler, times: int) -> None:
        handler.close_connection = True
        handler.wfile.write(start)
        while drop:
            handler.wfile.write(drop)
            time.sleep(pause)

    return behave


def hang(handler: Handler, times: int) -> None:
    """Nothing is answered until the client goes away."""
    handler.connection.recv(1)


def close(handler: Handler, times: int) -> None:
    handler.close_connection = True
    handler.connection.close()


def slow(handler: Handler, times: int) -> None:
    time.sleep(0.1)
    handler.reply(json.dumps(completion(GOOD)).encode())


def unread(handler: Handler, times: int) -> None:
    """The connection ends in the middle of the answer."""
    handler.close_connection = True
    handler.wfile.write(HEAD + b'Content-Length: 1000\r\n\r\n{"choices": [')


@cache
def bomb(size: int) -> bytes:
    """``size`` zero bytes, packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BEHAVIOURS: dict[str, Behaviour] = {
    "hang": hang,
    "close": close,
    "slow": slow,
    "unread": unread,
    "500 twice": then_good(said({"error": "out of order"}, 500), often=2),
    "garbage": said(b"{not json"),
    "other json": said(["surprise"]),
    "drip body": raw(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "drip chunks": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "drip headers": raw(HEAD, b"X-Waiting: yes\r\n"),
    "drip status": raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "flood": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n", 0),
    "packed": said(gzip.compress(json.dumps(completion(GOOD)).encode()), Content_Encoding="gzip"),
    "packed strangely": said(b"?", Content_Encoding="br"),
    "packed wrongly": said(b"not packed", Content_Encoding="gzip"),
    "parts": said(completion([{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}])),
}
DRIPS = [name for name in BEHAVIOURS if name.startswith("drip")]
