import pytest

from toybox.evaluation.report import BEGIN, END, FIGURES, tables_of, write_readme

ROW = {"drawn": 80, "right": 0.7, "right_by_candidate": [0.8, 0.6], "kept": 20, "kept_right": None}
FIGURE_VALUES = {section: {} for section, *_ in FIGURES}
FIGURE_VALUES["autoencoder"] = {"psnr_db": 33.1}
VALUES = {
    "date": "2026-11-25",
    **FIGURE_VALUES,
    "edits": {"tasks": {"local": {"planned": 40, **ROW}}, "all": ROW},
}


def test_tables_hold_what_was_measured_and_nothing_else():
    text = tables_of(VALUES)
    assert "| autoencoder: PSNR, dB | 33.1 | >= 26 |" in text
    assert "| local | 40 | 80 | 0.70 | 0.80, 0.60 | 20 |  |" in text
    assert "CLIP" not in text, "a figure that was not measured is not written"


def test_only_the_tables_of_a_readme_are_written_anew(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before \\1\n{BEGIN}\nold\n{END}\nafter\n")
    write_readme(path, VALUES)
    first = path.read_text()
    write_readme(path, VALUES)
    assert path.read_text() == first
    assert first.startswith("before \\1\n")
    assert first.endswith("after\n")
    assert "old" not in first


def test_a_readme_without_markers_is_refused(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="needs the lines"):
        write_readme(path, VALUES)
    assert path.read_text() == "nothing"
