"""No text of others does anything on a terminal but be read."""

import ast
import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live
from rich.progress import Progress, TextColumn
from rich.text import Text

import pipeline
from pipeline.shown import DataTable, Terminal, brief, shown, shown_lines

HOSTILE = (
    "[/INST] [red]x[/red] [link=http://evil]y[/link] :smile: \x1b[2J\x1b]0;t\x07 \x9b31m \x7f \r \x08 \t "
    "\u202e\u2066\u200b\u200d\u2060\ufeff\u00ad\u034f\u115f\u3164\ufe0f\u2028\u2029\x85\U000e0041 \ud800 "
    "\ue000 猫 \U0001f600 é"
)
"""One of each kind that a caption, an answer, a reason, an id or a name may hold."""


def forbidden(text: str) -> set[str]:
    """What may not reach a terminal in it, besides ends of lines."""
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    invisible = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe0f\u2800"
    return {c for c in text if c != "\n" and (unicodedata.category(c) in hidden or c in invisible)}


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_a_shown_text_is_one_line_of_visible_characters(text):
    assert not forbidden(shown(text))
    assert "\n" not in shown(text)
    assert not forbidden(shown_lines(text))
    assert shown(shown(text)) == shown(text)
    assert shown_lines(text).count("\n") == text.count("\n")


def test_what_can_be_read_stays_as_it_is():
    for text in ("a red cube", "naïve café", "猫 и кот", "\U0001f600", "[/INST] \\ {}"):
        assert shown(text) == text
    assert shown("a\u3000b\u00a0c\u2009d") == "a b c d", "spaces of other scripts"
    assert shown("a\x1b\u202e\n") == "a\\x1b\\u202e\\n"


def printed(show, **options) -> str:
    out = io.StringIO()
    show(Terminal(file=out, width=200, **options))
    return out.getvalue()


WAYS = {
    "a line": lambda console: console.print(HOSTILE),
    "a wrapped line": lambda console: console.print(HOSTILE, soft_wrap=True),
    "with a style": lambda console: console.print(HOSTILE, style="bold"),
    "a text of rich": lambda console: console.print(Text.assemble((HOSTILE, "bold"), HOSTILE)),
    "a table": lambda console: console.print(table()),
    "a live table": lambda console: Live(table(), console=console, auto_refresh=False).__enter__().stop(),
    "a bar": lambda console: bar(console),
    "a rule": lambda console: console.rule(HOSTILE),
    "a log line": lambda console: console.log(HOSTILE),
}


def table() -> DataTable:
    made = DataTable(HOSTILE, title=Text(shown(HOSTILE)))
    made.add_column(HOSTILE)
    made.add_row(HOSTILE, HOSTILE)
    return made


def bar(console: Console) -> None:
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(HOSTILE, total=1)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_printing_shows_hostile_text_as_text(way):
    out = printed(WAYS[way])
    assert not forbidden(out)
    assert "[/INST] [red]x[/red]" in re.sub(r"\s+", " ", out)


@pytest.mark.parametrize("way", ["a line", "a table", "a bar"])
def test_on_a_terminal_the_only_escapes_are_rich_s_own(way):
    ours = re.sub(r"\x1b\[[0-9;?]*[mhlKAG]|\r", "", printed(WAYS[way], force_terminal=True))
    assert not forbidden(ours)
    assert "\\x1b[2J" in ours


def test_a_table_is_safe_on_any_console():
    out = io.StringIO()
    Console(file=out, width=400).print(table())
    assert not forbidden(out.getvalue())
    assert "[red]x[/red]" in out.getvalue()


def test_a_terminal_without_the_characters_gets_escapes():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    console = Terminal(file=out, width=200)
    console.print(table())
    console.print("猫")
    out.flush()
    assert b"\\u732b" in raw.getvalue()


def test_a_long_text_is_cut_visibly():
    assert brief("a" * 1000, 10) == "a" * 10 + "... (1000 characters)"
    assert brief("short") == "short"


def test_commands_print_through_nothing_else():
    """A plain console takes what is in brackets for markup; ``print`` lets everything through."""
    for path in Path(pipeline.__file__).parent.rglob("*.py"):
        if path.name == "shown.py":
            continue
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        named = {call.id for call in calls if isinstance(call, ast.Name)}
        assert not named & {"Console", "Table", "print"}, path
