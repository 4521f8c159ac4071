"""The page of a review: a small HTTP server on loopback.

The address holds a random token, and without it nothing is served. Requests whose ``Host`` or ``Origin`` is
another name are refused, so that no page of another site can read or give verdicts (DNS rebinding, CSRF).
The page's policy allows its own files and no other source. Texts of the run travel as JSON and are shown
with ``textContent``.
"""

import json
import re
import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import interrupts
from pipeline.errors import UserError, describe
from pipeline.verdicts.pictures import VIEWS, Exhibits, view_png
from pipeline.verdicts.session import Item, Session
from pipeline.verdicts.verdict import REASONS, Answer, Key

LOOPBACK = "127.0.0.1"
MOST_BYTES = 4096
"""Longest body of a request."""
_TIMEOUT_S = 30
_FILES = {
    "": ("review.html", "text/html; charset=utf-8"),
    "review.js": ("review.js", "text/javascript; charset=utf-8"),
    "review.css": ("review.css", "text/css; charset=utf-8"),
}
_PICTURE = re.compile(r"picture/([0-9a-f]{32})/([1-9])/(\d{1,5})/([a-z-]+)\.png")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Given(BaseModel):
    """The body of a verdict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    turn: int
    candidate: int
    verdict: Answer
    reason: str = Field(max_length=200)


class Reply(NamedTuple):
    status: int
    kind: str
    body: bytes


class Review(ThreadingHTTPServer):
    """Serves one session. ``address`` is to be opened in a browser."""

    daemon_threads = True

    def __init__(self, session: Session, exhibits: Exhibits, port: int = 0) -> None:
        self.session, self.exhibits = session, exhibits
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            raise UserError(
                f"--port {port}: {error.strerror}: leave it out, and a free one is taken"
            ) from error

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection is no error, and all others were answered."""

    @property
    def hosts(self) -> tuple[str, str]:
        """The values of ``Host`` that a browser of this machine sends."""
        return f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}"

    @property
    def address(self) -> str:
        return f"http://{self.hosts[0]}/{self.token}/"

    def serve(self) -> None:
        """Serve until Ctrl-C, which is how a review ends. Other signals end the process as always."""
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            if interrupts.received() not in (None, signal.SIGINT):
                raise

    def state(self, item: Item | None) -> Reply:
        """What the page shows: a candidate, and the progress."""
        shown = None if item is None else self._shown(item)
        progress = asdict(self.session.progress())
        return _json({"item": shown, "progress": progress, "who": self.session.who, "reasons": REASONS})

    def _shown(self, item: Item) -> dict[str, Any]:
        """A candidate without the filter's decision and scores, which would sway the person."""
        row = item.drawn.row
        shown = {**item.key._asdict(), "candidates": len(row.scores), "task": row.task, "damage": ""}
        try:
            exhibit = self.exhibits.read(item)
        except UserError as error:
            return {**shown, "damage": str(error)}
        return {
            **shown,
            "instruction": exhibit.instruction,
            "input_caption": exhibit.input_caption,
            "output_caption": exhibit.output_caption,
        }

    def picture(self, key: Key, view: str) -> Reply:
        item = self.session.item(key)
        if item is None or view not in VIEWS:
            return _error(404)
        return Reply(200, "image/png", view_png(self.exhibits.read(item), view))

    def give(self, body: bytes) -> Reply:
        try:
            given = Given.model_validate_json(body)
        except ValidationError:
            return _error(400)
        item = self.session.item(Key(given.id, given.turn, given.candidate))
        if item is None:
            return _error(404)
        self.session.give(item, given.verdict, given.reason)
        return self.state(self.session.next())


def _json(content: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, "application/json", json.dumps(content).encode())


def _error(status: int) -> Reply:
    return _json({"error": HTTPStatus(status).phrase}, status)


class _Handler(BaseHTTPRequestHandler):
    server: Review
    server_version, sys_version = "editpairs", ""
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if path in _FILES:
            name, kind = _FILES[path]
            content = (files("pipeline.verdicts") / "html" / name).read_bytes()
            self._send(Reply(200, kind, content))
        elif path == "state":
            self._answer(lambda: self.server.state(self.server.session.next()))
        elif match := _PICTURE.fullmatch(path):
            key = Key(match[1], int(match[2]), int(match[3]))
            self._answer(lambda: self.server.picture(key, match[4]))
        else:
            self._send(_error(404))

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,4}", length) or int(length) > MOST_BYTES:
            self.close_connection = True  # the body was not read
            return self._send(_error(413))
        body = self.rfile.read(int(length))
        if self.headers.get("Content-Type") != "application/json":
            return self._send(_error(415))
        if path == "verdict":
            self._answer(lambda: self.server.give(body))
        elif path == "undo":
            session = self.server.session
            self._answer(lambda: self.server.state(session.undo() or session.next()))
        else:
            self._send(_error(404))

    def _path(self) -> str | None:
        """The path behind the token; None if the request was refused."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host not in self.server.hosts or origin not in (None, f"http://{host}"):
            self._refuse(403)
            return None
        _, token, *rest = [*self.path.partition("?")[0].split("/", 2), ""]
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not rest[:-1]:
            self._refuse(404)
            return None
        return rest[0]

    def _refuse(self, status: int) -> None:
        self.close_connection = True  # a body of the request was not read
        self._send(_error(status))

    def _answer(self, reply: Callable[[], Reply]) -> None:
        try:
            self._send(reply())
        except ConnectionError:
            raise  # the browser is gone
        except UserError as error:
            self._send(_json({"error": str(error)}, 500))
        except Exception as error:  # the page shows it, and the review goes on with the next request
            self._send(_json({"error": describe(error)}, 500))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.kind)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors that the base class finds in a request, without a page that repeats it."""
        self._refuse(code)

    def log_message(self, format: str, *arguments: object) -> None:
        """No access log: it would show the token."""
