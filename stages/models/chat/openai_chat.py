"""A language model behind an OpenAI-compatible endpoint: vLLM, ``transformers serve``, a hosted model.

The ``openai`` package keeps the connections. It retries temporary failures (429, 5xx, a closed connection, a
timeout) after a growing, jittered pause, and honours a Retry-After of at most two minutes. A seed is sent,
but the server decides whether to use it, so answers may not be reproducible.
"""

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.request import getproxies

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from stages.models.chat.address import is_here
from stages.models.chat.bounded_client import BoundedClient, EndpointError
from stages.models.chat.completion import CompletionError, error_text, excerpt, read_completion
from stages.models.chat.config import PARAMETERS, ChatConfig, EndpointConfig, Parameter
from stages.models.chat.conversation import Message, Picture, Question, Reply
from stages.models.chat.line import Line

_SHORTEST_SECRET = 6
"""Least length of a key that is masked in messages."""


class OpenAIChat:
    """Answers questions over HTTP, at most ``concurrency`` at a time.

    Args:
        config: the model and its sampling.
        endpoint: the server.
        section: the manifest's section of the model, for errors.

    Raises:
        ValueError: the key is missing in the environment, or the environment names an unusable proxy.
    """

    streams = True

    def __init__(self, config: ChatConfig, endpoint: EndpointConfig, section: str) -> None:
        self._config, self._endpoint, self._section = config, endpoint, section
        self._key = _key(endpoint.api_key_variable, section)
        try:
            self._http()
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise ValueError(
                f"{section}.endpoint.base_url: no connection can be made to it: {error}; correct the proxy "
                "that the environment names in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            ) from error

    @contextmanager
    def opened(self) -> Iterator[Line]:
        """A line of its own event loop, which runs while a reply is waited for."""
        loop = asyncio.new_event_loop()
        client = AsyncOpenAI(
            api_key=self._key,
            base_url=self._endpoint.base_url,
            timeout=self._endpoint.timeout_seconds,
            max_retries=self._endpoint.retries,
            http_client=self._http(),
        )
        line = _Requests(self._endpoint.concurrency, loop, partial(self._answer, client))
        try:
            yield line
        finally:
            try:
                loop.run_until_complete(line.give_up())
                loop.run_until_complete(client.close())
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                loop.close()

    def identity(self, question: Question) -> str:
        """Also of the seed, which need not be sent: each attempt of a row has a reply of its own."""
        told = {
            **self._request(question),
            "seed of the row": question.seed,
            "revision": self._config.revision,
        }
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _http(self) -> BoundedClient:
        where = self._endpoint
        key = f"{self._section}.endpoint.base_url"
        return BoundedClient(where.base_url, where.timeout_seconds, where.concurrency, key)

    async def _answer(self, client: AsyncOpenAI, question: Question) -> Reply | Exception:
        """The reply to a question, or the error. An error never affects other questions."""
        try:
            response = await client.post(
                "/chat/completions", cast_to=httpx2.Response, body=self._request(question)
            )
            return read_completion(response.content)
        except CompletionError as error:
            shown = excerpt(self._masked(response.content))
            text = f"the endpoint's answer is no chat completion: {error}: {shown}"
        except Exception as error:
            text = self._described(error)
        return EndpointError(self._masked(text.encode(errors="replace")).decode(errors="replace"))

    def _request(self, question: Question) -> dict[str, Any]:
        config = self._config
        values: dict[Parameter, Any] = {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "seed": question.seed % 2**31,
            "response_format": question.form,
        }
        sent = {name: values[parameter] for parameter, name in self._names().items() if name}
        return {"model": config.model, "messages": [_encoded(each) for each in question.messages], **sent}

    def _names(self) -> dict[Parameter, str]:
        """The name of each request parameter; empty for a parameter that is left out."""
        return {name: self._config.parameters.get(name, name) for name in PARAMETERS}

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


class _Requests:
    """The open requests, as tasks of an event loop."""

    def __init__(
        self,
        slots: int,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[Question], Awaitable[Reply | Exception]],
    ) -> None:
        self.slots, self._loop, self._answer = slots, loop, answer
        self._answered: list[tuple[int, Reply | Exception]] = []
        self._any = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, number: int, question: Question) -> None:
        task = self._loop.create_task(self._ask(number, question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, number: int, question: Question) -> None:
        reply = await self._answer(question)
        self._answered.append((number, reply))
        self._any.set()

    def wait(self) -> Sequence[tuple[int, Reply | Exception]]:
        self._loop.run_until_complete(self._any.wait())
        answered, self._answered = self._answered, []
        self._any.clear()
        return answered

    async def give_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


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
