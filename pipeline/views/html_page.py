"""A self-contained HTML page: the frame, texts and tables of ``editpairs report`` and ``editpairs evaluate``.

Captions and answers are untrusted data here too. Texts are escaped. The page's policy allows its own script
(by hash) and no request.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from pipeline.shown import shown


def document(title: str, sections: Sequence[str], scripts: str = "", script: str = "") -> str:
    """A page.

    Args:
        title: plain text.
        sections: HTML of each section.
        scripts: HTML of script elements with data, before the script.
        script: the page's JavaScript; empty for none.
    """
    style = (files("pipeline.views") / "html" / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {allowed}"
        "form-action 'none'; base-uri 'none'"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        + "<body><main>"
        + "".join(f"<section>{section}</section>" for section in sections)
        + "</main>"
        + scripts
        + (f"<script>{script}</script>" if script else "")
        + "</body></html>\n"
    )


def as_json(value: Any) -> str:
    """JSON that is safe inside a script element: it cannot close the element or open another one."""
    content = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def text(value: object) -> str:
    """Data as escaped HTML text on one line."""
    return html.escape(shown(str(value)))


def table(label: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that scrolls on its own in a narrow window, also by keyboard."""
    cells = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = ["".join(f"<td>{text(cell)}</td>" for cell in row) for row in rows]
    content = f"<thead><tr>{cells}</tr></thead>" + "".join(f"<tr>{line}</tr>" for line in lines)
    region = f'class="wide" role="region" tabindex="0" aria-label="{text(label)}"'
    return f"<div {region}><table>{content}</table></div>"
