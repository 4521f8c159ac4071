"""Showing untrusted text on a terminal: captions, answers, reasons, ids, file names.

Such text can contain rich's markup, escape sequences that rewrite the screen, direction marks and invisible
characters. All output of editpairs goes through :class:`Terminal`, which shows every character as text.
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
"""Most characters shown of a long table cell, such as the reason of a failure."""
_INVISIBLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF),
)  # fmt: skip
"""Ranges that are invisible although Python calls them printable: Unicode's Default_Ignorable_Code_Point, and
the empty Braille pattern."""


def shown(text: str) -> str:
    """One line in which every character is visible. Others are escaped as Python writes them: ``\\x1b``.

    Escaped are control characters (C0 and C1, including line ends and tabs), direction marks and overrides,
    characters of zero width, line and paragraph separators, private and unassigned characters, and lone
    surrogates. Spaces of other scripts become an ordinary space.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def shown_lines(text: str) -> str:
    """The same for a message that can have several lines."""
    return "\n".join(map(shown, text.split("\n")))


def brief(text: str, longest: int = LONGEST) -> str:
    """Cut a text to ``longest`` characters; a cut text says how long it was."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def size_shown(size: float) -> str:
    """Bytes in decimal units, as sellers of disks count."""
    for unit, bytes_each, digits in (("TB", 1e12, 1), ("GB", 1e9, 1), ("MB", 1e6, 0)):
        if size >= bytes_each:
            return f"{size / bytes_each:.{digits}f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _shown(character: str) -> str:
    code = ord(character)
    if character.isspace() and code >= 0xA0 and code not in (0x2028, 0x2029):
        return " "
    if character.isprintable() and not any(low <= code <= high for low, high in _INVISIBLE):
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


class DataTable(Table):
    """A table whose strings are shown as plain text on every console."""

    def add_column(self, header: RenderableType = "", *arguments: Any, **options: Any) -> None:
        super().add_column(_as_text(header), *arguments, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*map(_as_text, cells), **options)


def plain_table(*columns: str, text: int = 1) -> DataTable:
    """A table whose first ``text`` columns are text and whose other columns are numbers."""
    table = DataTable(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < text else "right", overflow="fold")
    return table


def _as_text(cell: Any) -> Any:
    return Text(shown_lines(cell)) if isinstance(cell, str) else cell


class Terminal(Console):
    """A console that shows every string as plain text: no markup, no emoji codes, no cursor movement.

    Bold text must be a :class:`rich.text.Text` with a style. A character missing in the terminal's encoding
    is escaped as well.
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
        """Any string that is printed, including table cells, without interpretation."""
        return Text(shown_lines(text), style=style, justify=justify, overflow=overflow)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to write: rich's own control codes unchanged, texts made safe."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(self._writable(segment.text), segment.style)

    def _writable(self, text: str) -> str:
        safe = shown_lines(text)
        if self.encoding.startswith("utf"):
            return safe
        return safe.encode(self.encoding, "backslashreplace").decode(self.encoding)


def terminal(errors: bool = False) -> Terminal:
    """The console for a command's output. In a pipe or file, lines have 140 columns.

    Args:
        errors: write to standard error.
    """
    stream = sys.stderr if errors else sys.stdout
    return Terminal(stderr=errors, width=None if stream.isatty() else 140)
