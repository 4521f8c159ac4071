"""A stand-in for a language model's server: it answers every question of the instruct stage at once."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "EDITPAIRS_BENCHMARK_KEY"
"""The environment variable with the server's key, which is any text."""
CAPTIONS = [
    f"a {color} {kind} {place}"
    for color in ("red", "green", "orange", "purple", "yellow")
    for kind in ("boat", "house", "mushroom", "star")
    for place in ("in a meadow", "on a beach", "in a desert", "in a forest")
]
NEW = "a blue car"
"""What it can answer about, in the toybox's words."""


def answer_about(caption: str) -> dict[str, str]:
    """The answer to a question about one of ``CAPTIONS``: its object becomes another one."""
    old = " ".join(caption.split()[:3])
    return {
        "original_object": old,
        "edit": f"replace {old} with {NEW}",
        "edited_object": NEW,
        "output_caption": caption.replace(old, NEW),
        "surroundings": "",
    }


class StandIn(BaseHTTPRequestHandler):
    """A server that answers every question at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        caption = json.loads(request["messages"][-1]["content"])["caption"]
        message = {"role": "assistant", "content": json.dumps(answer_about(caption))}
        body = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[str]:
    """The base URL of a stand-in for a language model's server."""
    os.environ[KEY] = "any"
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
