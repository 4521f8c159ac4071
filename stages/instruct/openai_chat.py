"""A language model behind an OpenAI-compatible endpoint: vLLM, ``transformers serve``, a hosted model.

The ``openai`` package keeps the connections, retries what may pass (429, 5xx, a closed connection, a
timeout) after a growing, jittered pause, and honours Retry-After. Answers are as the server gave
them: a seed is sent, but whether it decides is the server's affair.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from openai import AsyncOpenAI, OpenAIError

from stages.instruct import EndpointConfig, InstructConfig
from stages.instruct.prompt import ANSWER_KEYS, Message

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "edit",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {key: {"type": "string"} for key in ANSWER_KEYS},
            "required": list(ANSWER_KEYS),
            "additionalProperties": False,
        },
    },
}
"""``response_format``: the four texts of an answer and nothing else."""


class EndpointError(Exception):
    """A row's request failed for good; the message names the status and no secret."""


class OpenAIChat:
    """Completes conversations over HTTP, at most ``concurrency`` at a time.

    Raises:
        ValueError: the environment lacks the key.
    """

    def __init__(self, config: InstructConfig, endpoint: EndpointConfig) -> None:
        key = os.environ.get(endpoint.api_key_variable)
        if not key:
            raise ValueError(
                f"instruct.endpoint.api_key_variable: the environment has no {endpoint.api_key_variable}; "
                "export the key under that name (any text for a server that wants none)"
            )
        self._config, self._endpoint, self._key = config, endpoint, key
        self.batch = config.batch

    def complete(self, conversations: Sequence[list[Message]], seeds: Sequence[int]) -> list[str | Exception]:
        """The next turn of each conversation, or why there is none; a row never fails its neighbours."""
        return asyncio.run(self._complete(conversations, seeds))

    async def _complete(
        self, conversations: Sequence[list[Message]], seeds: Sequence[int]
    ) -> list[str | Exception]:
        free = asyncio.Semaphore(self._endpoint.concurrency)
        async with AsyncOpenAI(
            api_key=self._key,
            base_url=self._endpoint.base_url,
            timeout=self._endpoint.timeout_seconds,
            max_retries=self._endpoint.retries,
        ) as client:

            async def answer(messages: list[Message], seed: int) -> str | Exception:
                async with free:
                    return await self._answer(client, messages, seed)

            return list(await asyncio.gather(*map(answer, conversations, seeds)))

    async def _answer(self, client: AsyncOpenAI, messages: list[Message], seed: int) -> str | Exception:
        config = self._config
        request: dict[str, Any] = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_new_tokens,
            "seed": seed % 2**31,
        }
        if config.json_schema:
            request["response_format"] = ANSWER_SCHEMA
        try:
            completion: Any = await client.chat.completions.create(**request)
            return completion.choices[0].message.content or ""
        except OpenAIError as error:
            return EndpointError(_described(error, self._key))
        except (AttributeError, IndexError, TypeError, ValueError):
            return EndpointError("the endpoint's answer is not a chat completion")


def _described(error: OpenAIError, key: str) -> str:
    status = getattr(error, "status_code", None)
    text = f"{type(error).__name__}{f' {status}' if status else ''}: {error}"
    return text.replace(key, "***")
