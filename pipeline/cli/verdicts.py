"""Commands that collect people's verdicts and fit the filter to them."""

import getpass
from typing import Annotated

import typer
from rich.text import Text

from pipeline.cli.app import app, console
from pipeline.cli.options import RunArgument
from pipeline.errors import UserError


@app.command(
    epilog="Examples:\n\n  editpairs review runs/toybox --who anna\n\n"
    "  editpairs review runs/toybox --from verdicts.csv"
)
def review(
    run: RunArgument,
    who: Annotated[
        str, typer.Option(help="the person who judges; default: the name of your login", show_default=False)
    ] = "",
    given: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE", help="take verdicts from a .csv, .jsonl or .parquet file"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the page; 0: a free one")] = 0,
    seed: Annotated[int, typer.Option(help="draws the rows")] = 0,
) -> None:
    """Judge pairs by eye, kept and rejected ones, on a local page; verdicts go to verdicts.parquet."""
    from pipeline.api import open_run
    from pipeline.store.location import locate
    from pipeline.verdicts.book import Book
    from pipeline.verdicts.given_file import read_given
    from pipeline.verdicts.pictures import Exhibits
    from pipeline.verdicts.population import reviewable
    from pipeline.verdicts.server import Review
    from pipeline.verdicts.session import Session
    from pipeline.verdicts.strata import draw
    from pipeline.verdicts.summary import check_given, summary_table
    from pipeline.verdicts.verdict import MOST_CHARACTERS
    from pipeline.views.rows import bounds_of, calibrated

    opened = open_run(run)
    name = (who or _login()).strip()
    if not name or len(name) > MOST_CHARACTERS:
        raise UserError(f"--who: name the person who judges, in at most {MOST_CHARACTERS} characters")
    state, tasks = opened.state, opened.tasks
    book = Book(state.folder, state.plan.digest)
    verdicts = [] if given is None else read_given(locate(given), name)
    population = reviewable(state, seed, {verdict.id for verdict in [*verdicts, *book.read()]})
    if not population:
        raise UserError(f"{run} has no rows that the filter has decided about: run generate first")
    if given is not None:
        check_given(given, verdicts, population)
        book.add(verdicts)
        console.print(f"{len(verdicts)} verdicts of {given} are in {book.path}", soft_wrap=True)
    else:
        bounds, models = bounds_of(opened.manifest, tasks), calibrated(opened.manifest)
        session = Session(draw(population, bounds, seed, models), book, name)
        with Review(session, Exhibits(state, tasks), port) as page:
            console.print(Text("Open in a browser of this machine:"), Text(page.address, "bold"), sep="\n")
            console.print("Ctrl-C ends the review. Every verdict is on the disk once the next pair appears.")
            page.serve()
    console.print(summary_table(population, book.read()))


@app.command(
    epilog="Examples:\n\n  editpairs calibrate runs/toybox\n\n"
    "  editpairs calibrate runs/sdxl --precision 0.98 --out strict.json"
)
def calibrate(
    run: RunArgument,
    precision: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="wanted share of right pairs among a task's kept ones")
    ] = 0.95,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="default: model.json in the run folder", show_default=False
        ),
    ] = None,
) -> None:
    """Fit the filter to verdicts, and tell precision and recall before and after; writes filter.model."""
    from pipeline.api import open_run
    from pipeline.calibration.calibrate import calibrate as fit
    from pipeline.calibration.crossed import cross_validated
    from pipeline.calibration.folds import check_enough
    from pipeline.calibration.model_file import model_json, score_models
    from pipeline.calibration.summary import summary
    from pipeline.store.location import locate
    from pipeline.store.outputs import new_file
    from pipeline.verdicts.book import Book
    from pipeline.verdicts.estimate import known_rows
    from pipeline.verdicts.population import reviewable
    from stages.filter.stage import FilterConfig

    opened = open_run(run)
    state, tasks = opened.state, opened.tasks
    verdicts = Book(state.folder, state.plan.digest).read()
    if not verdicts:
        raise UserError(f"{run} has no verdicts yet: give some with editpairs review {run}")
    known = known_rows(reviewable(state, 0, {verdict.id for verdict in verdicts}), verdicts)
    check_enough(known)
    config = opened.manifest.section("filter", FilterConfig)
    where = state.folder.root / "model.json" if out is None else locate(out)
    with new_file(where) as file:
        after = cross_validated(known, tasks, config, precision)
        calibrated = fit(known, tasks, config, precision)
        model = calibrated.model.model_copy(update={"scored_by": score_models(state)})
        file.write(model_json(model).encode())
    console.print(summary(known, after, calibrated, precision))
    console.print(f"wrote {where}. Apply it, without a GPU, with", soft_wrap=True)
    console.print(
        f"editpairs rerun MANIFEST --stage filter --set filter.model={where}", soft_wrap=True, style="bold"
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user can have no name
        return ""
