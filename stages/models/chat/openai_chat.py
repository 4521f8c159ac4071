"""A language model behind an OpenAI-compatible endpoint: vLLM, ``transformers serve``, a hosted model.

The ``openai`` package keeps the connections. It retries temporary failures (429, 5xx, a closed connection, a
timeout) after a growing, jittered pause, and honours a Retry-After of at most two minutes. A seed is sent,
but the server decides whether to use it, so answers may not be reproducible.
"""

import asyncio
import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.request import getproxies

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from stages.models.chat.address import is_here
from stages.models.chat.bounded_client import BoundedClient, EndpointError
from stages.models.chat.completion import CompletionError, error_text, excerpt, read_completion
from stages.models.chat.config import PARAMETERS, ChatConfig, EndpointConfig, Parameter
from stages.models.chat.conversation import Message, Picture, Reply

_SHORTEST_SECRET = 6
"""Least length of a key that is masked in messages."""


class OpenAIChat:
    """Completes conversations over HTTP, at most ``concurrency`` at a time.

    Args:
        config: the model and its sampling.
        endpoint: the server.
        batch: conversations per call.
        response_format: the required format of an answer, sent to the server.
        section: the manifest's section of the model, for errors.

    Raises:
        ValueError: the key is missing in the environment, or the environment names an unusable proxy.
    """

    def __init__(
        self,
        config: ChatConfig,
        endpoint: EndpointConfig,
        batch: int,
        response_format: Mapping[str, Any],
        section: str,
    ) -> None:
        self._config, self._endpoint, self._section = config, endpoint, section
        self._key = _key(endpoint.api_key_variable, section)
        self.batch, self._response_format = batch, response_format
        try:
            self._http()
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise ValueError(
                f"{section}.endpoint.base_url: no connection can be made to it: {error}; correct the proxy "
                "that the environment names in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            ) from error

    def complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> list[Reply | Exception]:
        """The reply to each conversation, or the error. An error in one row never affects the others."""
        return asyncio.run(self._complete(conversations, seeds))

    def _http(self) -> BoundedClient:
        where = self._endpoint
        key = f"{self._section}.endpoint.base_url"
        return BoundedClient(where.base_url, where.timeout_seconds, where.concurrency, key)

    async def _complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> list[Reply | Exception]:
        free = asyncio.Semaphore(self._endpoint.concurrency)
        async with AsyncOpenAI(
            api_key=self._key,
            base_url=self._endpoint.base_url,
            timeout=self._endpoint.timeout_seconds,
            max_retries=self._endpoint.retries,
            http_client=self._http(),
        ) as client:

            async def answer(messages: list[Message], seed: int) -> Reply:
                async with free:
                    response = await client.post(
                        "/chat/completions", cast_to=httpx2.Response, body=self._request(messages, seed)
                    )
                try:
                    return read_completion(response.content)
                except CompletionError as error:
                    raise EndpointError(
                        f"the endpoint's answer is no chat completion: {error}: "
                        f"{excerpt(self._masked(response.content))}"
                    ) from None

            # Catch everything: the other rows have been answered already, and paid for.
            results = await asyncio.gather(*map(answer, conversations, seeds), return_exceptions=True)
        return [self._outcome(result) for result in results]

    def _request(self, messages: list[Message], seed: int) -> dict[str, Any]:
        config = self._config
        values: dict[Parameter, Any] = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "seed": seed % 2**31,
            "response_format": self._response_format,
        }
        sent = {name: values[parameter] for parameter, name in self._names().items() if name}
        return {"model": config.model, "messages": [_encoded(message) for message in messages], **sent}

    def _names(self) -> dict[Parameter, str]:
        """The name of each request parameter; empty for a parameter that is left out."""
        return {name: self._config.parameters.get(name, name) for name in PARAMETERS}

    def _outcome(self, result: Reply | BaseException) -> Reply | Exception:
        if isinstance(result, Reply):
            return result
        if not isinstance(result, Exception):
            raise result
        text = self._masked(self._described(result).encode(errors="replace"))
        return EndpointError(text.decode(errors="replace"))

    def _masked(self, text: bytes) -> bytes:
        """The text with the key masked. A very short key is no secret and could be part of ordinary words."""
        return text.replace(self._key.encode(), b"***") if len(self._key) >= _SHORTEST_SECRET else text

    def _described(self, error: Exception) -> str:
        if isinstance(error, EndpointError):
            return str(error)
        if isinstance(error, APIStatusError):
            return self._told(error.response)
        if isinstance(error, APIConnectionError):
            proxies = getproxies().keys() & {"http", "https", "all"}
            by = " by the environment's proxy" if proxies and not is_here(error.request.url.host) else ""
            return f"no answer{by}: {_causes(error)}"
        return _causes(error)

    def _told(self, response: httpx2.Response) -> str:
        """The message of a failed answer, with a hint if one applies."""
        sent, status = response.extensions["sent_status"], response.status_code
        text = f"HTTP {sent}" if sent == status else f"HTTP {sent} with an error ({status})"
        if "retry-after" in response.headers:
            text += f", Retry-After {response.headers['retry-after'][:40]}"
        told = error_text(self._masked(response.content))
        if status in (400, 404, 422) and any(name and name in told for name in self._names().values()):
            told += f"; {self._section}.parameters renames or leaves out a parameter"
        return f"{text}: {told}"


def _encoded(message: Message) -> dict[str, Any]:
    """A message as the protocol has it: pictures are data URLs, so that no server has to fetch anything."""
    content = message["content"]
    return {**message, "content": content if isinstance(content, str) else [_part(part) for part in content]}


def _part(part: str | Picture) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = f"data:image/png;base64,{base64.b64encode(part.png).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _key(variable: str, section: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"{section}.endpoint.api_key_variable: the environment has no {variable}; "
            "export the key under that name (any text for a server that wants none)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"{section}.endpoint.api_key_variable: the value of {variable} is not a key: a key is one line "
            "of ASCII characters without spaces"
        )
    return key


def _causes(error: BaseException | None) -> str:
    """An error and its chain of causes, root last: the libraries' own messages do not name the cause."""
    texts: dict[str, str] = {}
    while error is not None:
        texts.setdefault(str(error), type(error).__name__)
        inside = getattr(error, "exceptions", None)  # an ExceptionGroup holds one error per address of a host
        error = error.__cause__ or error.__context__ or (inside[0] if inside else None)
    return " <- ".join(f"{name}: {text}" if text else name for text, name in texts.items())
