"""Text of others on a terminal: captions, answers, reasons, ids, names of folders and files.

They may hold rich's markup, escape sequences that rewrite the screen, characters that turn the line round
or cannot be seen. Everything editpairs says goes through :class:`Terminal`, which shows all of it as text.
"""

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

LONGEST = 400
"""Characters of a table's cell that may be of any length, such as the reason of a failure."""
_INVISIBLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
)  # fmt: skip
"""Ranges that show nothing though Python calls them printable (Unicode's Default_Ignorable_Code_Point, and
the empty Braille pattern)."""


def shown(text: str) -> str:
    """A text on one line, each character visible: others stand as Python writes them, such as ``\\x1b``.

    Replaced are control characters (C0 and C1, with line ends and tabs), direction marks and overrides,
    characters of no width, line and paragraph separators, private and unassigned characters and lone
    surrogates. The spaces of other scripts become a space.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def shown_lines(text: str) -> str:
    """The same of a message that may have several lines."""
    return "\n".join(map(shown, text.split("\n")))


def brief(text: str, longest: int = LONGEST) -> str:
    """A text cut to ``longest`` characters, visibly."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def _shown(character: str) -> str:
    code = ord(character)
    if character.isspace() and code >= 0xA0 and code not in (0x2028, 0x2029):
        return " "
    if character.isprintable() and not any(low <= code <= high for low, high in _INVISIBLE):
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


class DataTable(Table):
    """A table whose texts are data, whatever console it is printed to."""

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:
        super().add_column(_as_text(header), *arguments, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*map(_as_text, cells), **options)


def _as_text(cell: Any) -> Any:
    return Text(shown_lines(cell)) if isinstance(cell, str) else cell


class Terminal(Console):
    """A console that takes every text as data: no markup, no emoji codes, nothing that moves the cursor.

    What is to be bold is a :class:`rich.text.Text` with a style. A character that the terminal's encoding
    lacks is written as an escape too.
    """

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        **interpretation: object,
    ) -> Text:
        """Any string in what is printed, a table's cells among them, as it is."""
        return Text(shown_lines(text), style=style, justify=justify, overflow=overflow)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments that are written; those of rich's own controls stay, texts are made safe."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._writable(segment.text), segment.style)

    def _writable(self, text: str) -> str:
        safe = shown_lines(text)
        if self.encoding.startswith("utf"):
            return safe
        return safe.encode(self.encoding, "backslashreplace").decode(self.encoding)


def terminal(errors: bool = False) -> Terminal:
    """What a command prints to. A pipe or file gets lines of 140 columns.

    Args:
        errors: to standard error.
    """
    stream = sys.stderr if errors else sys.stdout
    return Terminal(stderr=errors, width=None if stream.isatty() else 140)
