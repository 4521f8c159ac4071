"""200 hostile captions: every one is accounted for, and nothing of them runs where they are shown."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.toybox_runs import ROOT, Run

CAPTIONS = ROOT / "tests" / "data" / "hostile_captions.jsonl"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Run:
    made = Run(tmp_path_factory.mktemp("hostile"))
    made.settings += [
        f"captions.file={CAPTIONS}",
        "captions.duplicates=keep",
        "tasks.mixture={detect: 1}",
        "diffusion.steps=2",
        "rows=200",
        "rows_per_part=50",
        "instruct.attempts=1",
        "instruct.batch=50",
        "instruct.max_new_tokens=32",  # a batch goes on until its longest answer ends
    ]
    made.generate_here()
    return made


@pytest.fixture(scope="module")
def page(hostile) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        told = CliRunner().invoke(app, ["report", str(hostile.folder), "--rows", "200"])
    assert told.exit_code == 0, told.output
    return hostile.folder / "report.html"


def test_every_caption_ends_as_a_row_with_a_reason(hostile):
    records = [
        record
        for part in sorted((hostile.folder / "instruct").glob("*.parquet"))
        for record in pq.read_table(part).to_pylist()
    ]
    assert len(records) == 200
    assert {record["status"] for record in records} <= {"kept", "rejected"}
    reasons = {record["reason"] for record in records}
    assert {"empty_caption", "caption_too_long", "control_characters"} <= reasons


class Scripts(HTMLParser):
    """What of a page a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.suspicious: list[str] = []
        self.policy = ""
        self._open = False

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "script":
            self._open = True
            self.scripts.append("")
        if tag == "meta" and named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"]
        if tag in ("iframe", "base", "object", "link", "img") or any(name.startswith("on") for name in named):
            self.suspicious.append(f"{tag} {named}")

    def handle_endtag(self, tag):
        self._open = self._open and tag != "script"

    def handle_data(self, data):
        if self._open:
            self.scripts[-1] += data


def test_the_page_has_its_own_script_and_no_other(page):
    parsed = Scripts()
    parsed.feed(page.read_text(encoding="utf-8"))
    data, script = parsed.scripts
    assert len(json.loads(data)) == 200
    assert "use strict" in script
    assert parsed.suspicious == []
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/=]+'; "
        r"form-action 'none'; base-uri 'none'",
        parsed.policy,
    )


@pytest.mark.full
def test_headless_chromium_opens_filters_and_runs_nothing(page):
    """Needs Chromium (Debian's package ``chromium``)."""
    browser = shutil.which("chromium")
    assert browser, "install chromium"

    def opened(anchor: str = "") -> str:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
        command = [browser, *flags, f"file://{page}{anchor}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    everything = opened()
    assert "<title>toybox</title>" in everything, "a caption has changed the title"
    assert everything.count('class="row') == 60, "the first page of the gallery"
    assert 'src="data:image/webp' in everything
    filtered = opened("#task=detect&status=kept")
    shown = int(re.search(r"(\d+) of 200 rows", filtered)[1])
    assert 0 < shown < 200
    assert filtered.count("tag kept") == min(shown, 60)
    assert "tag rejected" not in filtered
