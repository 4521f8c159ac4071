"""An HTTP client with limits on time, size and redirects, so that a server cannot block or flood a worker."""

import asyncio
import ssl
import zlib
from functools import cache
from typing import Any

import httpx2
from openai import OpenAIError

from stages.models.chat.address import is_here
from stages.models.chat.completion import error_status

MAX_BYTES = 1 << 20
"""Most bytes of an answer's body, before and after unpacking: about 250 000 tokens."""


class EndpointError(OpenAIError):
    """A row's request failed for good. The message names the HTTP status and contains no secret.

    The ``openai`` package passes this error on without retrying.
    """


class BoundedClient(httpx2.AsyncClient):
    """Reads whole answers of at most ``MAX_BYTES`` within ``seconds``, from connecting to the last byte.

    Redirects are not followed. An answer with a success status and an error in its body gets the error's
    status; the extension ``sent_status`` keeps the original one.

    Args:
        url: the server's URL. A server on this machine is reached directly, without the environment's proxy.
        seconds: time limit per request.
        connections: most simultaneous connections.
        key: manifest key of the URL, for errors.

    Raises:
        ImportError, ValueError, httpx2.InvalidURL: the environment's proxy settings are unusable.
    """

    def __init__(self, url: str, seconds: float, connections: int, key: str) -> None:
        self._seconds, self._key = seconds, key
        super().__init__(
            headers={"Accept-Encoding": "gzip"},
            limits=httpx2.Limits(max_connections=connections),
            trust_env=not is_here(httpx2.URL(url).host),
            verify=_certificates(),  # includes the environment's certificates
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and read its answer.

        Raises:
            httpx2.TransportError: no complete answer arrived; a retry may help.
            EndpointError: a retry would not help.
        """
        try:
            return await asyncio.wait_for(self._read(request), self._seconds)
        except asyncio.TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request) from None

    async def _read(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().send(request, stream=True, follow_redirects=False)
        try:
            if 300 <= response.status_code < 400:
                raise EndpointError(
                    f"HTTP {response.status_code}: the endpoint redirects to {_target(response)}, and "
                    f"redirects are not followed; correct {self._key}"
                )
            body = await _body(response)
        finally:
            await response.aclose()
        status = error_status(body) if response.is_success else None
        return httpx2.Response(
            status or response.status_code,
            headers=[(name, value) for name, value in response.headers.raw if not _describes_body(name)],
            content=body,
            request=request,
            extensions={"sent_status": response.status_code},
        )


async def _body(response: httpx2.Response) -> bytes:
    """The unpacked body. Packed and unpacked size are both bounded."""
    packed = bytearray()
    async for chunk in response.aiter_raw():
        packed += chunk
        _refuse_more_than_the_bound(packed)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return bytes(packed)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise EndpointError(f"the endpoint's answer is packed as {encoding!r}, which was not asked for")
    try:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        body = unpacker.decompress(packed, MAX_BYTES + 1)
    except zlib.error as error:
        raise httpx2.DecodingError(str(error), request=response.request) from error
    _refuse_more_than_the_bound(body)
    if not unpacker.eof:
        raise httpx2.DecodingError("the packed answer breaks off", request=response.request)
    return body


def _refuse_more_than_the_bound(body: bytes | bytearray) -> None:
    if len(body) > MAX_BYTES:
        raise EndpointError(f"the endpoint's answer is larger than {MAX_BYTES:,} bytes")


def _target(response: httpx2.Response) -> str:
    """The host of a redirect. The rest of the address is left out, because it can contain secrets."""
    try:
        url = response.request.url.join(response.headers.get("location", ""))
    except httpx2.InvalidURL:
        return "an address that cannot be read"
    return f"{url.scheme}://{url.netloc.decode(errors='replace')}"


@cache
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _describes_body(header: bytes) -> bool:
    return header.lower() in (b"content-encoding", b"content-length", b"transfer-encoding")
