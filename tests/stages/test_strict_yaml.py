"""What YAML lets pass in silence, and what it blows up to, is one message that names the line."""

import time
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.strict_yaml import MOST_BYTES, YamlError, parse_yaml, read_yaml

TWICE = {
    "flat": "a: 1\nb: 2\na: 3",
    "deep": "x: [{y: {z: 1, z: 2}}]",
    "quoted": 'a: 1\n"a": 2',
    "escaped": '"\\x61": 1\na: 2',
    "tagged": "a: 1\n!!str a: 2",
    "merge keys": "b: &b {s: 1}\nd: {<<: *b, <<: *b}",
    "inside an anchor": "b: &b {s: 1, s: 2}\nd: {<<: *b}",
    "in a merge's own list": "b: &b {s: 1}\nd: {<<: [*b, {t: 1, t: 2}]}",
}


@pytest.mark.parametrize("text", TWICE.values(), ids=TWICE)
def test_a_key_stands_once(text):
    with pytest.raises(YamlError, match=r"line \d.*the key '.+' occurs twice"):
        parse_yaml(text)


def test_a_merged_value_is_overridden_as_yaml_says():
    assert parse_yaml("b: &b {s: 1, t: 2}\nd: {<<: *b, s: 3}")["d"] == {"s": 3, "t": 2}


@pytest.mark.parametrize("key", ["1", "yes", "~", "", ".5", "[a]", "{a: 1}", "1e3"])
def test_a_key_is_text(key):
    with pytest.raises(YamlError, match=r"line 1: the key .* is not text: put it in quotes"):
        parse_yaml(f"? {key}\n: 1")


HUGE = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "aliases under merge keys": "a: &a {x: 1}\n"
    + "".join(f"b{i}: &b{i} {{<<: [{','.join([f'*b{i - 1}' if i else '*a'] * 9)}]}}\n" for i in range(9)),
    "a chain of aliases": "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 20_000)),
    "sequences": "[" * 100_000,
    "mappings": "{a: " * 100_000,
    "indented": "".join(" " * i + "a:\n" for i in range(1000)),
    "keys": "\n".join(f"k{i}: 1" for i in range(600_000)),
    "few keys more than allowed": "\n".join(f"k{i}: 1" for i in range(60_000)),
    "text": "a: " + "x" * (MOST_BYTES + 1),
    "a cycle": "a: &a [*a]",
    "a number": "a: " + "9" * 5000,
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
def test_what_is_huge_is_refused_in_seconds(text):
    start = time.process_time()
    with pytest.raises(YamlError):
        parse_yaml(text)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("3e-2", 0.03),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("010", "010"),
        ("1:30", "1:30"),
        ("0x10", "0x10"),
        ("2026-11-27", "2026-11-27"),
        ("2026-13-45", "2026-13-45"),
        ("off", False),
        ("~", None),
        ("", None),
    ],
)
def test_a_number_is_what_it_looks_like(text, value):
    parsed = parse_yaml(text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!set {a, b}",
        "!!binary aGk=",
        "!!int x",
        "!!bool x",
        "!mine x",
        "a: 1\n---\nb: 2",
        "a: [",
        "a: \x00",
        "a\udc80: 1",
        "*nowhere",
        "%YAML 9.9\n---\na",
    ],
)
def test_what_is_no_plain_value_is_one_line(text):
    with pytest.raises(YamlError) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (b"a: 1\nb: caf\xe9", "line 2 is not UTF-8"),
        (bytes(range(256)), "UTF-8|valid YAML"),
        (b"x" * (MOST_BYTES + 1), "is longer than"),
    ],
)
def test_a_file_that_is_no_text(tmp_path, content, message):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(YamlError, match=message):
        read_yaml(tmp_path / "a.yaml")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "a.yaml").write_bytes("\ufeffa: 1".encode())
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}


def test_a_file_without_end_is_left(tmp_path):
    with pytest.raises(YamlError, match="is longer than"):
        read_yaml(type(tmp_path)("/dev/zero"))


words = st.text("abc é", min_size=1, max_size=5)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
documents = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@given(documents)
def test_what_is_dumped_comes_back(value):
    text = yaml.safe_dump(value, allow_unicode=True)
    assert parse_yaml(text) == yaml.safe_load(text) == value


@given(st.text(max_size=40) | st.text("{}[]:,&*!<>|-? a1\n'\"#%", max_size=40))
def test_any_text_is_a_value_or_an_error_of_ours(text):
    with suppress(YamlError):
        parse_yaml(text)
