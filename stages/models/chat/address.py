"""Checks of an endpoint's URL and key variable. The lock file shows both, so neither may contain a secret."""

import re
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

_FORM = "write it as https://host/v1"
_SECRET = (
    "it is written to the run's folder and to reports; credentials come from the environment variable "
    "that endpoint.api_key_variable names"
)
_KEY = re.compile(
    r"/((sk|pk|rk|hf|gsk|xai|nvapi|pplx|ghp|r8)[-_][\w-]{16,}|AIza[\w-]{30,}|eyJ[\w-]{10,})|=", re.IGNORECASE
)
"""Typical prefixes of keys in a path. An equals sign is refused too: a normal address has none."""


def checked_address(url: str) -> str:
    """The base URL of an endpoint. Error messages do not quote it, because it can contain a secret.

    Raises:
        ValueError: the URL is not an http(s) address, or contains a user, a password, a query, or a likely
            key.
    """
    plain = unquote(url)
    if "@" in plain:
        raise ValueError(f"it may hold no user and no password: {_SECRET}")
    if "?" in plain or "#" in plain:
        raise ValueError(f"it may hold no query and no fragment: {_SECRET}")
    try:
        parts = urlsplit(plain)
        seems_secret = bool(_KEY.search(parts.path))
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        seems_secret = fits = False
    if seems_secret:
        raise ValueError(f"it seems to hold a key: {_SECRET}")
    if not fits or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError(f"it is not the address of a server; {_FORM}")
    return url


def checked_variable(name: str) -> str:
    """The name of an environment variable. The error message does not quote it: it could be the key itself.

    Raises:
        ValueError: it is not a valid name.
    """
    if not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            "it is no name of an environment variable (capitals, digits, underscores); the key itself "
            "belongs into the environment, not into the manifest"
        )
    return name


def is_here(host: str) -> bool:
    """Whether a host is this machine: a loopback address, or the unspecified address."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
