"""An address at which no Ray answers is named, soon, and not waited for."""

import socket
import threading
from contextlib import contextmanager

import pytest

from pipeline.engine import ray_start
from pipeline.engine.ray_start import HTTP2_PREFACE, named_address, start_ray
from pipeline.errors import UserError
from pipeline.manifest.manifest import RayOptions

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def listener(answer: bytes | None):
    """``host:port`` of one that accepts, and answers once: None never, empty by closing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                if answer is not None:
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def in_short(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_start, "ANSWER_SECONDS", 0.5)
    # Ray itself would wait for minutes.
    monkeypatch.setattr(ray_start, "_init", lambda **_: pytest.fail("Ray was asked to join"))


def refused(message: str, address: str | None) -> None:
    with pytest.raises(UserError, match=message):
        start_ray(RayOptions(address=address))


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_stale_address_is_named(monkeypatch, scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    refused(f"ray.address: no Ray cluster can be joined at {closed}: Connection refused", closed)
    monkeypatch.setenv("RAY_ADDRESS", closed)
    for address in (None, "auto"):
        refused(f"RAY_ADDRESS: no Ray cluster can be joined at {closed}: Connection refused", address)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "nothing answered in 0.5 s"),
        (b"", "what answers there is no Ray"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Ray"),
        (SETTINGS[:5], "what answers there is no Ray|Connection reset"),
    ],
)
def test_what_is_no_ray_is_not_waited_for(answer, message):
    with listener(answer) as address:
        refused(f"ray.address: .*{address}: ({message})", address)


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "http://127.0.0.1:8265",
        "127.0.0.1:99999",
        "127.0.0.1:port",
        ":6379",
        "ray://",
        "[::1",
    ],
)
def test_a_malformed_address_is_told_how_one_looks(address):
    refused("an address is host:port, such as 10.0.0.1:6379", address)


def test_a_host_that_is_not_known_is_named():
    refused(
        "ray.address: no Ray cluster can be joined at no-such-host.invalid:6379: ",
        "no-such-host.invalid:6379",
    )


def test_a_server_that_takes_its_time_is_no_dead_one(monkeypatch):
    monkeypatch.setattr(ray_start, "ANSWER_SECONDS", 10)
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = []

        def serve():
            connection, _ = server.accept()
            heard.append(connection.recv(100))
            for byte in SETTINGS:
                connection.sendall(bytes([byte]))
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        ray_start._answers(f"localhost:{server.getsockname()[1]}")
        thread.join()
        assert heard == [HTTP2_PREFACE]


@pytest.mark.parametrize(
    ("key", "variable", "source", "address"),
    [
        (None, None, "RAY_ADDRESS", None),
        (None, "", "ray.address", None),
        ("local", "10.0.0.1:6379", "ray.address", None),
        (None, "local", "RAY_ADDRESS", None),
        ("10.0.0.2:6379", "10.0.0.1:6379", "ray.address", "10.0.0.2:6379"),
        ("auto", "10.0.0.1:6379", "RAY_ADDRESS", "10.0.0.1:6379"),
        ("auto", None, "ray.address", "auto"),
    ],
)
def test_the_manifest_comes_before_the_environment(monkeypatch, key, variable, source, address):
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    named = named_address(RayOptions(address=key))
    assert named[1] == address
    if address is not None:
        assert named[0] == source
