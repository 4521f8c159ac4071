"""Strict YAML for files written by people: manifests, task files, ``--set``. Ambiguous input is an error.

Plain YAML keeps the last of two equal keys, reads ``010`` as eight and ``1:30`` as ninety, and lets a
kilobyte of aliases expand to a billion values. Here a key may occur once and must be text, a number is
written as in JSON (or ``.inf``, ``.nan``, ``1_000``), tags are refused, and size and depth are limited.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 1 << 20
MOST_VALUES = 50_000
"""Most values in a file, counting each use of an alias."""
MOST_DEPTH = 40

_TOO_LONG = f"is longer than {MOST_BYTES >> 20} MB, so it is not a settings file"
_TAG = "tag:yaml.org,2002:"
_MERGE, _TEXT = f"{_TAG}merge", f"{_TAG}str"
_SCALARS = {f"{_TAG}{name}" for name in ("bool", "float", "int", "null", "str")}
_KNOWN = {*_SCALARS, _MERGE, f"{_TAG}map", f"{_TAG}seq"}


class YamlError(ValueError):
    """The text is not YAML, or is ambiguous. The message names the line but not the file."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, which makes only plain values, with fewer spellings for them."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}


_BOOLEANS = r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"
_INTEGER = r"[-+]?(?:0|[1-9][0-9_]*)"
_EXPONENT = r"(?:[eE][-+]?[0-9]+)"
_DECIMAL = rf"(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*){_EXPONENT}?|[0-9][0-9_]*{_EXPONENT}"
_FLOAT = rf"[-+]?(?:{_DECIMAL}|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
for _name, _pattern, _first in (
    ("bool", _BOOLEANS, "yYnNtTfFoO"),
    ("int", _INTEGER, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", "<<", "<"),
    ("null", "~|null|Null|NULL|", [*"~nN", ""]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read_yaml(path: Path) -> Any:
    """Read a file.

    Raises:
        OSError: the file cannot be read.
        YamlError: it is not UTF-8, not YAML, or ambiguous.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise YamlError(_TOO_LONG)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise YamlError("is UTF-16: save it as UTF-8")
    try:
        return parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError(f"line {line} is not UTF-8: save the file as UTF-8") from None


def parse_yaml(text: str) -> Any:
    """Parse a text; None for an empty one.

    Raises:
        YamlError: the text is not YAML, or is ambiguous.
    """
    try:
        if len(text.encode()) > MOST_BYTES:
            raise YamlError(_TOO_LONG)
        _check_size(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _Check(loader).size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UnicodeEncodeError:
        raise YamlError("is not valid YAML: it is not UTF-8") from None
    except yaml.YAMLError as error:
        raise YamlError(f"is not valid YAML: {_in_one_line(error)}") from error


def _check_size(text: str) -> None:
    """Check size and depth on the stream of events, before anything recurses or takes long."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        values += isinstance(event, yaml.NodeEvent)
        if values > MOST_VALUES:
            raise YamlError(f"{_line(event)}: more than {MOST_VALUES} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise YamlError(f"{_line(event)}: more than {MOST_DEPTH} nested levels")


class _Check:
    """Checks the nodes of a document. Each node is visited once, however often an alias refers to it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._sizes: dict[yaml.Node, int | None] = {}

    def size(self, node: yaml.Node) -> int:
        """Check a node and return the number of values it expands to."""
        if node not in self._sizes:
            self._sizes[node] = None  # not yet known: an alias to an enclosing node finds None here
            if node.tag not in _KNOWN:
                raise YamlError(f"is not valid YAML: {_line(node)}: the tag {node.tag!r} is not known here")
            self._sizes[node] = 1 + sum(self.size(child) for child in self._children(node))
        size = self._sizes[node]
        if size is None:
            raise YamlError(f"{_line(node)}: an alias refers to a value that contains it")
        if size > MOST_VALUES:
            raise YamlError(f"{_line(node)}: more than {MOST_VALUES} values")
        return size

    def _children(self, node: yaml.Node) -> Iterator[yaml.Node]:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            yield from (value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            yield from node.value
        else:
            self._check_scalar(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        lines: dict[str, str] = {}
        for key, _ in node.value:
            if key.tag not in (_TEXT, _MERGE):
                named = key.value if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise YamlError(f"{_line(key)}: the key {named!r} is not text: put it in quotes")
            if key.value in lines:
                first = lines[key.value]
                where = _line(key) if first == _line(key) else f"{_line(key)} and {first}"
                raise YamlError(f"{where}: the key {key.value[:80]!r} occurs twice: remove one of them")
            lines[key.value] = _line(key)

    def _check_scalar(self, node: yaml.Node) -> None:
        """Refuse a number with too many digits, or a tag that does not fit its text."""
        try:
            self._loader.construct_object(node)
        except (ValueError, KeyError):
            kind = node.tag.removeprefix(_TAG)
            raise YamlError(f"{_line(node)}: {node.value[:80]!r} cannot be read as {kind}") from None


def _line(where: Any) -> str:
    return f"line {where.start_mark.line + 1}"


def _in_one_line(error: yaml.YAMLError) -> str:
    """The error on one line; PyYAML's own message quotes the file over several lines."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return " ".join(str(error).split())[:200]
    problem = getattr(error, "problem", None) or "unreadable"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
