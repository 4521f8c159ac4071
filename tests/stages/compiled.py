"""Counting the graphs that torch.compile makes, without making machine code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from stages.edit.stage import Edit
from tests.stages.edit_rows import latents_of


@contextmanager
def compiled_eagerly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """``torch.compile`` traces and runs the graphs as they are; yields what tells their number so far.

    No graph may be broken in parts.
    """
    torch._dynamo.reset()
    counters.clear()  # other tests of this process compile too
    with monkeypatch.context() as patched:
        patched.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        yield lambda: counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    assert not counters["graph_break"]


def assert_compiled_once(make: Callable[[bool], Edit], table, monkeypatch, *, by_gates: bool = False) -> None:
    """A compiled edit stage draws the same as an eager one, all its batches with one graph.

    Args:
        make: the stage, compiled or not.
        table: the rows of a batch.
        monkeypatch: pytest's.
        by_gates: whether the first batch may need one graph for each combination of open gates.
    """
    eager = latents_of(make(False), table, monkeypatch)
    with compiled_eagerly(monkeypatch) as graphs:
        editor, made = make(True), []
        for _ in range(2):
            assert torch.equal(latents_of(editor, table, monkeypatch), eager)
            made.append(graphs())
    assert made[0] == made[1], "none after the first batch"
    assert by_gates or made[0] == 1
