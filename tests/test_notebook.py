"""``docs/tour.ipynb``: every code cell is run, in order, as a reader runs it."""

import json
import os
import subprocess
import sys

from tests.toybox_runs import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
MOST_BYTES = 200_000
"""Of the file: outputs that are kept in it are small."""


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_runs(toybox_run, tmp_path):
    assert len(code_cells()) >= 5
    script = tmp_path / "tour.py"
    script.write_text("\n\n".join(code_cells()), encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EDITPAIRS_RUN": str(toybox_run.folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(toybox_run.shards())} pairs, finished: True" in done.stdout
    assert (work / "report.html").exists()


def test_the_notebook_is_small_and_without_a_trace_of_its_last_run():
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert str(ROOT) not in NOTEBOOK.read_text(encoding="utf-8")
