"""A stand-in of the Hub's API on loopback: repositories of data sets, as huggingface_hub asks for them.

Large files go through the real ``hf_xet``, into a folder that stands for its content-addressed store.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_not_a_real_one"
Entry = tuple[str, int, bytes | None]
"""A file's object id, its size, and its content unless it is in the store of large files."""


@dataclass
class Hub:
    """What the server holds and has seen."""

    store: Path
    endpoint: str = ""
    files: dict[str, dict[str, Entry]] = field(default_factory=dict)
    """Files by repository and name."""
    private: dict[str, bool] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    """Of each commit, its operations with their paths."""
    refuse: Callable[[str], int | None] = lambda path: None
    """The status that a request of this path is refused with."""

    def put(self, repository: str, name: str, content: bytes) -> None:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.files.setdefault(repository, {})[name] = (oid, len(content), content)

    def commit(self, repository: str, lines: list[dict]) -> None:
        operations = []
        for line in lines[1:]:
            kind, value = line["key"], line["value"]
            operations.append(f"{kind} {value['path']}")
            if kind == "file":
                self.put(repository, value["path"], base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                self.files[repository][value["path"]] = (value["oid"], value["size"], None)
            else:
                self.files[repository].pop(value["path"], None)
        self.commits.append(operations)

    def stored(self) -> dict[str, int]:
        """The blocks of large files, with their bytes."""
        return {path.name: path.stat().st_size for path in self.store.rglob("xorbs/default.*[0-9a-f]")}


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """A server for the block."""
    held = Hub(folder / "store")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": held}))
    held.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route(b"")

    def do_GET(self) -> None:
        self._route(b"")

    def do_POST(self) -> None:
        self._route(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _route(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        if (status := self.hub.refuse(path)) is not None:
            self._json({"error": "refused by the test"}, status)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.startswith("/api/datasets/"):
            owner, name, *rest = path.removeprefix("/api/datasets/").split("/")
            self._of_repository(f"{owner}/{name}", rest, body)
        elif path.startswith("/datasets/"):
            owner, name, _, _, *rest = path.removeprefix("/datasets/").split("/")
            self._content(self.hub.files[f"{owner}/{name}"].get("/".join(rest)))
        else:
            self._json({"error": f"nothing at {path}"}, 404)

    def _create(self, asked: dict) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid user token."}, 401)
            return
        repository = f"{asked['organization']}/{asked['name']}"
        there = repository in self.hub.files
        self.hub.files.setdefault(repository, {})
        self.hub.private.setdefault(repository, asked.get("visibility") == "private")
        self._json({"url": f"{self.hub.endpoint}/datasets/{repository}"}, 409 if there else 200)

    def _of_repository(self, repository: str, rest: list[str], body: bytes) -> None:
        files = self.hub.files.get(repository)
        if files is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["preupload"]:
            modes = []
            for asked in json.loads(body)["files"]:
                oid, _, _ = files.get(asked["path"], (None, 0, None))
                mode = "regular" if asked["path"].endswith(".md") else "lfs"
                modes.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
            self._json({"files": modes})
        elif rest[:1] == ["commit"]:
            self.hub.commit(repository, [json.loads(line) for line in body.splitlines()])
            number = f"{len(self.hub.commits):040x}"
            url = f"{self.hub.endpoint}/datasets/{repository}/commit/{number}"
            self._json({"commitUrl": url, "commitOid": number})
        elif rest[:1] == ["tree"]:
            self._tree(
                files, "/".join(rest[2:]), "recursive=True" in self.path or "recursive=true" in self.path
            )
        elif rest and rest[0].startswith("xet-"):
            self._json({"casUrl": f"local://{self.hub.store}", "accessToken": "t", "exp": 2**33})
        else:
            self._json({"id": repository, "sha": "0" * 40, "siblings": [{"rfilename": n} for n in files]})

    def _tree(self, files: dict[str, Entry], below: str, recursive: bool) -> None:
        found = {}
        for name, (oid, size, _) in sorted(files.items()):
            inner = name.removeprefix(f"{below}/") if below else name
            if below and inner == name:
                continue
            top, _, more = inner.partition("/")
            path = name if recursive or not more else f"{below}/{top}".lstrip("/")
            kind = "file" if path == name else "directory"
            found[path] = {"type": kind, "oid": oid, "size": size if kind == "file" else 0, "path": path}
        if found or not below:
            self._json([*found.values()])
        else:
            self._missing()

    def _content(self, entry: Entry | None) -> None:
        if entry is None or entry[2] is None:
            self._missing()
            return
        oid, _, content = entry
        first, last = 0, len(content) - 1
        if asked := self.headers.get("Range"):
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        headers = {"ETag": f'"{oid}"', "X-Repo-Commit": "0" * 40}
        self._answer(206 if asked else 200, content[first : last + 1], headers)

    def _missing(self) -> None:
        self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(
            status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
