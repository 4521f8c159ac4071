"""Start a local Ray, or join the cluster named in the manifest or the environment."""

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
"""Size of the object store in bytes. Only jobs, units and results pass through it."""
STARTS = 3
"""Attempts to start a local Ray. A busy machine can miss Ray's time limits."""
ANSWER_SECONDS = 15.0
"""Seconds that a cluster may take to answer.

Its system accepts connections at once and its GCS answers within two seconds even under load. Without this
check Ray itself would wait for minutes and could not be interrupted."""
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The first bytes of a gRPC client, followed by empty settings (RFC 9113, 3.4 and 6.5)."""
SETTINGS = 4
"""Type of the frame that a server answers with: the frame's fourth byte."""


def start_ray(options: RayOptions) -> None:
    """Connect this process to Ray.

    Raises:
        UserError: nothing answers at the address, or Ray does not start. The message names the key or
            variable.
    """
    # Ray reads these variables when it is imported or started, so they are set first.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Workers started in advance would be useless: ours have their own environment.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    source, address = named_address(options)
    if address is None:
        _init_local(options)
        return
    address = _checked(source, address)
    with _told(source, address):
        _init(address=address)


def cluster_problems(options: RayOptions) -> Iterator[str]:
    """The reason why the named cluster cannot be joined, if nothing answers there. Ray is not started."""
    source, address = named_address(options)
    if address is not None:
        try:
            _checked(source, address)
        except UserError as error:
            yield str(error)


def _checked(source: str, address: str) -> str:
    """The address of the cluster, after something has answered there."""
    with _told(source, address):
        resolved = _resolved(address)
    with _told(source, resolved):
        _answers(resolved.removeprefix("ray://"))
    return resolved


@contextmanager
def _told(source: str, address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Ray raises bare exceptions
        raise UserError(
            f"{source}: no Ray cluster can be joined at {address}: {_words(error)}\n"
            f"Correct or remove {source} (without it a local Ray is started), or use --engine local"
        ) from error


def named_address(options: RayOptions) -> tuple[str, str | None]:
    """The source of the cluster's address, and the address; None: start Ray on this machine."""
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
        except Exception as error:  # a bare exception again, for example after Ray's own 30 s limit
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
    """Host and port of the cluster that ``auto`` finds. Other addresses are returned unchanged."""
    if address != "auto":
        return address
    from ray._private.services import canonicalize_bootstrap_address

    return canonicalize_bootstrap_address("auto")


def _answers(address: str) -> None:
    """Check that a gRPC server answers at ``host:port``.

    Raises:
        OSError, ValueError: nothing answers, or the address is malformed.
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
    """Keep our signal handlers: Ray's start installs its own for SIGTERM, which ends the process silently."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:  # raised by Ray's handler
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        if before not in (signal.SIG_DFL, None):
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Hide the process's stderr.

    Ray's compiled part prints a note about logging there, at every log level.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
