"""Start a local Ray, or join the cluster that the manifest or the environment names."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from pipeline.engine.threads import usable_cpus
from pipeline.errors import UserError, describe
from pipeline.manifest.manifest import RayOptions

OBJECT_STORE_BYTES = 100_000_000
"""Only jobs, units and results pass through the store."""
STARTS = 3
"""How often a local Ray is started before giving up: a busy machine misses time limits."""
ANSWER_SECONDS = 15.0
"""How long a cluster may take to answer. Its system accepts at once, its GCS within a second or two even
under load; without this question Ray itself waits for minutes, and nothing interrupts it."""
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a gRPC client says first, and empty settings (RFC 9113, 3.4 and 6.5)."""
SETTINGS = 4
"""The type of the frame that a server answers with; the fourth byte."""


def start_ray(options: RayOptions) -> None:
    """Connect this process.

    Raises:
        UserError: nothing answers at the address, or Ray does not start; names the key or variable.
    """
    # Read by Ray when it is imported or started, so set before.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Workers made beforehand are of no use: ours have an environment of their own.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    source, address = named_address(options)
    if address is None:
        _init_local(options)
        return
    try:
        address = _resolved(address)
        _answers(address.removeprefix("ray://"))
        _init(address=address)
    except Exception as error:  # Ray raises bare ones
        raise UserError(
            f"{source}: no Ray cluster can be joined at {address}: {_words(error)}\n"
            f"Correct or remove {source} (without it a local Ray is started), or use --engine local"
        ) from error


def named_address(options: RayOptions) -> tuple[str, str | None]:
    """What names the cluster to join, and its address; None: Ray is to be started here."""
    source, address = "ray.address", options.address
    named = os.environ.get("RAY_ADDRESS")
    if named and address in (None, "", "auto"):
        source, address = "RAY_ADDRESS", named
    return source, None if address in (None, "", "local") else address


def _init_local(options: RayOptions) -> None:
    for attempt in range(STARTS):
        try:
            _init(
                address="local",
                num_cpus=usable_cpus(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=options.dashboard,
                dashboard_host="127.0.0.1",
            )
            return
        except Exception as error:  # bare ones again, such as when its 30 seconds are over
            if attempt == STARTS - 1:
                raise UserError(
                    f"Ray did not start on this machine: {_words(error)}\n--engine local does without it"
                ) from error


def _init(**arguments: Any) -> None:
    import ray

    with _signals_kept(), warnings.catch_warnings(), _stderr_closed():
        warnings.simplefilter("ignore")
        try:
            ray.init(logging_level=logging.CRITICAL, log_to_driver=False, **arguments)
        except BaseException:
            ray.shutdown()
            raise


def _resolved(address: str) -> str:
    """Host and port of the cluster that ``auto`` means; other addresses as they are."""
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address

    return canonicalize_bootstrap_address("auto")


def _answers(address: str) -> None:
    """Ask whether a gRPC server is at ``host:port``.

    Raises:
        OSError, ValueError: there is none, or the address is none.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"an address is host:port, such as 10.0.0.1:6379 ({error})") from error
    if not host or not port or parts.path or "@" in parts.netloc:
        raise ValueError("an address is host:port, such as 10.0.0.1:6379, or auto")
    deadline = time.monotonic() + ANSWER_SECONDS
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        connection.sendall(HTTP2_PREFACE)
        answer = b""
        while len(answer) < 9:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                received = connection.recv(9 - len(answer))
            except ConnectionResetError:
                break
            if not received:
                break
            answer += received
        if len(answer) < 9 or answer[3] != SETTINGS:
            raise ConnectionError("what answers there is no Ray")


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing answered in {ANSWER_SECONDS:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip() or describe(error)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray's start puts a handler of its own on SIGTERM, which ends the process without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # its handler ran
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if before not in (signal.SIG_DFL, None):
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Ray's compiled part says on the process's stderr how much it will say there, whatever the level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
