import io

from rich.console import Console

from pipeline.engine import progress
from pipeline.engine.generate import generate
from stages.placed import first_turn
from tests.pipeline.fake_stages import FAKES


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


def said(verbosity: progress.Verbosity) -> list[str]:
    out = io.StringIO()
    shown = progress.Progress(Console(file=out, width=100), verbosity)
    with shown.stage("edit", 1, 40) as advance:
        advance(40)
        shown.detail("edit/00000.parquet")
        shown.note("memory was too small")
    return [line.split()[0] for line in out.getvalue().splitlines()]


def test_a_quiet_command_says_what_a_user_must_know_and_a_verbose_one_every_file():
    assert said("quiet") == ["memory"]
    assert said("normal") == ["memory", "edit"]
    assert said("verbose") == ["edit/00000.parquet", "memory", "edit"]


def test_a_verbose_run_names_every_file_it_commits(run):
    out = io.StringIO()
    generate(
        run.manifest(),
        first_turn(FAKES),
        progress=progress.Progress(Console(file=out, width=200), "verbose"),
        engine="local",
    )
    for name in run.files():
        if name != "plan.parquet":
            assert f"{name}: " in out.getvalue()
