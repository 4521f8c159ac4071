"""An HTTP client that a server can neither keep waiting, nor fill up, nor send elsewhere."""

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
"""Of an answer's body, as sent and unpacked: about 250 000 tokens."""


class EndpointError(OpenAIError):
    """A row's request failed for good; the message names the status and no secret.

    The ``openai`` package hands its own errors on without trying again.
    """


class BoundedClient(httpx2.AsyncClient):
    """Reads whole answers, of at most ``MAX_BYTES``, within ``seconds`` from the connecting to the last byte.

    No redirect is followed. An answer that is told as a success but holds an error gets the error's
    status, with the one that was sent under the extension ``sent_status``.

    Args:
        url: the server's. One on this machine is reached directly, whatever proxy the environment names.
        seconds: a request.
        connections: at once.

    Raises:
        ImportError, ValueError, httpx2.InvalidURL: the environment's proxy cannot be used.
    """

    def __init__(self, url: str, seconds: float, connections: int) -> None:
        self._seconds = seconds
        super().__init__(
            headers={"Accept-Encoding": "gzip"},
            limits=httpx2.Limits(max_connections=connections),
            trust_env=not is_here(httpx2.URL(url).host),
            verify=_certificates(),  # with the environment's certificates in any case
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and read its answer.

        Raises:
            httpx2.TransportError: no whole answer came; trying again may help.
            EndpointError: trying again would not.
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
                    "redirects are not followed; correct instruct.endpoint.base_url"
                )
            body = await _body(response)
        finally:
            await response.aclose()
        status = error_status(body) if response.is_success else None
        return httpx2.Response(
            status or response.status_code,
            headers=[(k, v) for k, v in response.headers.multi_items() if not _describes_body(k)],
            content=body,
            request=request,
            extensions={"sent_status": response.status_code},
        )


async def _body(response: httpx2.Response) -> bytes:
    """The unpacked body; packed and unpacked bytes are bounded both."""
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
        body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(packed, MAX_BYTES + 1)
    except zlib.error as error:
        raise httpx2.DecodingError(str(error), request=response.request) from error
    _refuse_more_than_the_bound(body)
    return body


def _refuse_more_than_the_bound(body: bytes | bytearray) -> None:
    if len(body) > MAX_BYTES:
        raise EndpointError(f"the endpoint's answer is larger than {MAX_BYTES:,} bytes")


def _target(response: httpx2.Response) -> str:
    """The host that a redirect leads to; what follows it may hold secrets."""
    try:
        url = response.request.url.join(response.headers.get("location", ""))
    except httpx2.InvalidURL:
        return "an address that cannot be read"
    return f"{url.scheme}://{url.netloc.decode(errors='replace')}"


@cache
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _describes_body(header: str) -> bool:
    return header.lower() in ("content-encoding", "content-length", "transfer-encoding")
