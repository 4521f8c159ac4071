"""A server that judges edits of the drawn world: the judge stage's endpoint for the toybox.

    python -m toybox.evaluation.judge_server --port 8008

It speaks the chat protocol of OpenAI: it decodes the pictures of a request, reads them with the independent
judge (:mod:`toybox.evaluation.judge`), and answers by :mod:`toybox.evaluation.differences`. It does not
understand language: of the quoted texts, only objects, places and times count. What this judge has filtered
cannot be measured with the independent judge any more.
"""

import argparse
import base64
import binascii
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import numpy as np

from stages.pictures.png import decode_rgb
from toybox.evaluation.differences import look, marks, other_caption
from toybox.evaluation.judge import Judge

_PNG = "data:image/png;base64,"
_QUOTED = "The quoted texts: "


class JudgeServer(ThreadingHTTPServer):
    """Serves ``/v1/chat/completions`` on loopback."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._judge, self._lock = Judge.load(), Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, request: Mapping[str, Any]) -> str:
        """The answer to a request: a JSON object.

        Raises:
            ValueError, LookupError, TypeError: it is no question of the judge stage.
        """
        parts = request["messages"][-1]["content"]
        told = next(part["text"] for part in parts if part["type"] == "text")
        texts, _ = json.JSONDecoder().raw_decode(told.removeprefix(_QUOTED))
        first, second = [_picture(part) for part in parts if part["type"] == "image_url"][:2]
        with self._lock:
            seen = look(self._judge, first, second)
        if "kind_of_edit" in texts:
            return json.dumps(other_caption(seen, texts))
        return json.dumps(marks(seen, texts))


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        try:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = self.server.answer(request)
        except (ValueError, LookupError, TypeError, StopIteration) as error:
            self._send(400, {"error": {"message": f"not a question of the judge stage: {error!r}"}})
            return
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
        counted = {"prompt_tokens": len(str(request)) // 4, "completion_tokens": len(answer) // 4}
        self._send(200, {"object": "chat.completion", "choices": [choice], "usage": counted})

    def _send(self, status: int, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _picture(part: Mapping[str, Any]) -> np.ndarray:
    url = part["image_url"]["url"]
    if not url.startswith(_PNG):
        raise ValueError("a picture is no data URL of a PNG")
    try:
        return decode_rgb(base64.b64decode(url.removeprefix(_PNG), validate=True))
    except binascii.Error as error:
        raise ValueError(f"a picture is not base64: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=8008)
    server = JudgeServer(parser.parse_args().port)
    print(f"judge.endpoint.base_url: {server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
