"""Checks of a chat model before a run, without loading it and without a request."""

import os
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from stages.models.chat.address import is_here
from stages.models.chat.config import EndpointConfig
from stages.models.tokenizer_files import check_tokenizer
from stages.models.weight_files import check_preprocessor, of_transformers, read_json

CONNECT_SECONDS = 3.0
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


def endpoint_problems(endpoint: EndpointConfig, section: str) -> Iterator[str]:
    """Check that the key is set and that a server (or proxy) accepts one TCP connection.

    Args:
        endpoint: the server.
        section: the manifest's section of the model, for errors.
    """
    if not os.environ.get(endpoint.api_key_variable):
        yield (
            f"{section}.endpoint.api_key_variable: the environment has no {endpoint.api_key_variable}; "
            "export the key under that name (any text for a server that wants none)"
        )
    key = f"{section}.endpoint.base_url"
    url = urlsplit(endpoint.base_url)
    host, port = url.hostname or "", url.port or {"http": 80, "https": 443}[url.scheme]
    proxy = urllib.request.getproxies().get(url.scheme)
    if proxy and not is_here(host) and not urllib.request.proxy_bypass(host):
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        reached, host, port = f"the proxy {through.hostname}", through.hostname or "", through.port or 80
    else:
        reached = f"{host}"
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        yield f"{key}: nothing answers at {reached}, port {port} ({reason}): start it, or correct the key"


def check_chat(folder: Path) -> None:
    """Check the folder of a chat model.

    Raises:
        ValueError: the folder does not hold a chat model.
    """
    classes = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    of_transformers("a causal language model", classes, check_tokenizer)(folder)
    if (folder / "generation_config.json").exists():
        read_json(folder / "generation_config.json")
    _check_template(folder, "tokenizer_config.json")


def check_vision_chat(folder: Path) -> None:
    """Check the folder of a chat model that sees pictures.

    Raises:
        ValueError: the folder does not hold one.
    """
    classes = ("ForConditionalGeneration", "ForImageTextToText")
    of_transformers("a vision language model", classes, check_preprocessor)(folder)
    _check_template(folder, "processor_config.json", "tokenizer_config.json")


def _check_template(folder: Path, *configs: str) -> None:
    """Raise ValueError if no template is in a file of its own or in the JSON files ``configs``."""
    if not any(_templates(folder, configs)):
        raise ValueError(f"{folder} has no chat template: use a chat model")


def _templates(folder: Path, configs: Sequence[str]) -> Iterator[str]:
    """The chat templates of a model, in its own files or in its settings."""
    for name in _TEMPLATES:
        if (folder / name).is_file():
            yield (folder / name).read_bytes().decode("utf-8").strip()
    for name in configs:
        if (folder / name).is_file():
            yield str(read_json(folder / name).get("chat_template") or "")
