"""The report's page: its colours can be read, and its numbers are those of all turns."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import pipeline
from pipeline.engine.ledger import StageCount
from pipeline.views.html_page import as_json
from pipeline.views.report import _histogram, _yield
from tests.pipeline.test_shown import HOSTILE, forbidden

CSS = (Path(pipeline.__file__).parent / "views" / "html" / "report.css").read_text()
COLOURS = {
    name: (light, dark) for name, light, dark in re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", CSS)
}


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colours such as ``#1b1b1f``."""

    def luminance(colour: str) -> float:
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_is_the_standard_s():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#2a9d5c") == pytest.approx(3.45, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(
    ("text", "behind"),
    [("ink", "paper"), ("faint", "paper"), ("failed", "paper"),
     *(("tag", status) for status in ("kept", "rejected", "failed", "pending"))],
)  # fmt: skip
def test_every_text_can_be_read(text, behind, scheme):
    assert contrast(COLOURS[text][scheme], COLOURS[behind][scheme]) >= 4.5


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("part", ["line", "bar", "kept", "rejected", "failed", "pending"])
def test_bars_edges_and_the_focus_can_be_seen(part, scheme):
    assert contrast(COLOURS[part][scheme], COLOURS["paper"][scheme]) >= 3


def test_no_colour_is_stated_beside_the_table_of_colours():
    after = CSS[CSS.index("}") :]
    assert not re.search(
        r"#[0-9a-f]{3,8}\b|opacity: \.|rgb", after.replace("#filters", "").replace("#gallery", "")
    )
    assert ":focus-visible" in after


def test_pairs_of_all_turns_are_counted():
    """It was the last turn's alone."""
    names = ["edit", "shards", "edit.2", "shards.2"]
    kept = [10, 8, 5, 3]
    counts = [
        StageCount(name, Counter(color=16), kept=Counter(color=rows))
        for name, rows in zip(names, kept, strict=True)
    ]
    steps = {name: SimpleNamespace(publishes="shards" in name) for name in names}
    assert "<td>11 (69%)</td>" in _yield(SimpleNamespace(steps=steps), counts)


def test_a_task_of_which_no_row_was_planned_has_a_yield():
    counts = [StageCount("shards", Counter(color=0), kept=Counter())]
    steps = {"shards": SimpleNamespace(publishes=True)}
    assert "<td>0 (0%)</td>" in _yield(SimpleNamespace(steps=steps), counts)


def test_hostile_names_stay_text_in_a_figure():
    drawn = _histogram(HOSTILE + '"><script>', [0.1, 0.2], [(0.15, "min")])
    assert not forbidden(drawn)
    assert "<script>" not in drawn


def test_json_in_a_script_ends_no_element():
    assert not set(as_json({"a": "</script><!--&\u2028\ud800"})) & set("<>&\u2028\ud800")
