"""Reviews of the small toybox run, served in a thread of the test."""

import copy
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.api import open_run
from pipeline.store.folder import RunFolder
from pipeline.verdicts.book import Book
from pipeline.verdicts.pictures import Exhibits
from pipeline.verdicts.population import reviewable
from pipeline.verdicts.server import Review
from pipeline.verdicts.session import Session
from pipeline.verdicts.strata import draw
from pipeline.views.rows import bounds_of


class Reviewed:
    """A run, opened once, and the verdicts of one test in a folder of its own."""

    def __init__(self, run: Path, verdicts: Path | None = None) -> None:
        opened = open_run(run)
        self.state = opened.state
        self.draw = draw(reviewable(self.state), bounds_of(opened.manifest, opened.tasks))
        self.exhibits = Exhibits(self.state, opened.tasks)
        self.folder = verdicts or run

    def with_verdicts_in(self, folder: Path) -> "Reviewed":
        other = copy.copy(self)
        other.folder = folder
        return other

    @property
    def book(self) -> Book:
        return Book(RunFolder(self.folder), self.state.plan.digest)

    def session(self, who: str = "anna") -> Session:
        return Session(self.draw, self.book, who)

    @contextmanager
    def served(self, who: str = "anna") -> Iterator[Review]:
        with Review(self.session(who), self.exhibits) as page:
            thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield page
            finally:
                page.shutdown()
                thread.join()


class Answer:
    """The answer to a request."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(address: str, body: Any = None, **headers: str) -> Answer:
    """One request, with JSON as a POST; ``Content_Type`` is written for ``Content-Type``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    if data is not None:
        named.setdefault("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, named)) as reply:
            return Answer(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())
