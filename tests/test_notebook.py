"""``docs/tour.ipynb``: every code cell is run, in order, as a reader runs it."""

import json

from tests.toybox_runs import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
MOST_BYTES = 200_000
"""Of the file: outputs that are kept in it are small."""


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_runs(toybox_run, tmp_path, monkeypatch, capsys):
    """In this process, where the model libraries are loaded already."""
    assert len(code_cells()) >= 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITPAIRS_RUN", str(toybox_run.folder))
    names: dict[str, object] = {}
    for number, cell in enumerate(code_cells()):
        exec(compile(cell, f"code cell {number}", "exec"), names)
    assert f"{len(toybox_run.shards())} pairs, finished: True" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()


def test_the_notebook_is_small_and_without_a_trace_of_its_last_run():
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert str(ROOT) not in NOTEBOOK.read_text(encoding="utf-8")
