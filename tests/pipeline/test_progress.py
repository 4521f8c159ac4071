import io

from rich.console import Console

from pipeline.engine import progress


def test_plain_lines_tell_rate_and_time_left(monkeypatch):
    clock = iter([0.0, 0.0, 0.0, 5.0, 20.0, 40.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with progress.Progress(Console(file=out, width=100)).stage("edit", 4, 40) as advance:
        next(clock)
        advance(10)
        advance(10)
        advance(20)
    assert [line.strip() for line in out.getvalue().splitlines()] == [
        "edit       20/40 rows, 1.0 rows/s, 20 s left",
        "edit       40 rows in 4 parts, 40.0 s, 1.0 rows/s",
    ]


def test_bar_is_shown_on_a_terminal():
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with progress.Progress(console).stage("edit", 1, 40) as advance:
        advance(40)
    assert "40/40 rows" in out.getvalue()
