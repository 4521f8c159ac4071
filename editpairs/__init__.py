"""Edit pairs from Python, with the functions that the command ``editpairs`` calls.

::

    import editpairs

    run = editpairs.generate("toybox", settings=["rows=24"])   # or: editpairs.open("runs/toybox")
    run.status().pairs                                         # how many pairs are published
    run.pairs(task="color", limit=3)[0].target                 # a PIL picture
    run.scores().groupby("task").clip_direction.median()       # a pandas frame, one line per candidate
    run.report("report.html")

    edit = editpairs.draw_edit(
        "a red boat in a room", "a blue boat in a room",
        task="color", original_object="a red boat", edited_object="a blue boat",
    )
    edit.input, edit.mask, edit.target

An error that the user can fix raises :class:`UserError`. Its message names the key, row or file and the way
out.
"""

from importlib.metadata import version

from pipeline.api import Run, generate
from pipeline.api import open_run as open
from pipeline.errors import StageError, UserError
from pipeline.one_edit import DrawnEdit, draw_edit
from pipeline.views.pairs import Pair
from pipeline.views.summary import RunStatus

__version__ = version("editpairs")
__all__ = [
    "DrawnEdit",
    "Pair",
    "Run",
    "RunStatus",
    "StageError",
    "UserError",
    "draw_edit",
    "generate",
    "open",
]
