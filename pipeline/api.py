"""Runs from Python: the implementation behind the package ``editpairs`` and the commands."""

import os
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.engine.generate import Engine
from pipeline.engine.generate import generate as run_generate
from pipeline.engine.generate import rerun as run_rerun
from pipeline.engine.progress import Progress, Verbosity
from pipeline.engine.state import RunState
from pipeline.errors import UserError
from pipeline.manifest.lockfile import locked_manifest, locked_tasks
from pipeline.manifest.manifest import Manifest, read_manifest
from pipeline.manifest.named import find_manifest
from pipeline.shown import terminal
from pipeline.store.location import Location, locate
from pipeline.store.outputs import new_file
from pipeline.views.pairs import Pair, each_pair
from pipeline.views.run import open_state
from pipeline.views.summary import RunStatus, summarize
from stages import STAGES
from stages.base import PICTURES
from stages.placed import Chain
from stages.sessions.turns import unrolled
from stages.shards.columns import KEPT
from stages.tasks import Tasks

if TYPE_CHECKING:
    import pandas


class Run:
    """An existing run, finished or not, made by :func:`open_run`, :func:`generate` or :func:`rerun`.

    Every method reads the current files. Only ``report`` writes a file.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state

    @property
    def folder(self) -> Location:
        """The run folder."""
        return self._state.folder.root

    @property
    def manifest(self) -> Manifest:
        """The resolved manifest of the last ``generate``."""
        return locked_manifest(self._state.folder.lock, STAGES)

    @property
    def tasks(self) -> Tasks:
        """The run's tasks by name, from its lock file."""
        return locked_tasks(self._state.folder.lock)

    @property
    def state(self) -> RunState:
        """The engine's view of the files, read now."""
        self._state = open_state(self.folder)
        self._state.scan()
        return self._state

    def status(self) -> RunStatus:
        """The state of every planned row by stage and task; the same as ``editpairs status --json``."""
        return summarize(self.state)

    def pairs(self, task: str | None = None, limit: int | None = None) -> list[Pair]:
        """The published pairs, in the order of the shards.

        Args:
            task: only pairs of this task.
            limit: most pairs to return; None for all (their pictures are held in memory).

        Raises:
            UserError: the run has no such task, or a shard cannot be read.
        """
        if task is not None and task not in (tasks := self.tasks):
            raise UserError(f"{self.folder} has no task {task!r}; its tasks: {', '.join(sorted(tasks))}")
        return list(islice(each_pair(self.folder, task), limit))

    def scores(self) -> "pandas.DataFrame":
        """All scored candidates, one line each, kept or not (:func:`pipeline.views.scores.score_frame`)."""
        from pipeline.views.scores import score_frame

        return score_frame(self.state)

    def report(
        self, path: str | os.PathLike[str] | None = None, *, rows: int = 600, seed: int = 0
    ) -> Location:
        """Write one HTML file: funnel, yields, score histograms, timings, settings and a gallery.

        Args:
            path: the file; None for ``report.html`` in the run folder.
            rows: most rows in the gallery.
            seed: draws the rows.

        Returns:
            The path written.

        Raises:
            UserError: the file cannot be written, or the run cannot be read.
        """
        from pipeline.views.report import report_page
        from pipeline.views.rows import bounds_of, calibrated

        tasks, manifest = self.tasks, self.manifest
        bounds, models = bounds_of(manifest, tasks), calibrated(manifest)
        where = self.folder / "report.html" if path is None else locate(path)
        with new_file(where) as file:
            page, _ = report_page(self.state, tasks, bounds, models, rows, seed)
            file.write(page.encode("utf-8"))
        return where


def open_run(folder: str | os.PathLike[str]) -> Run:
    """Open a run by its folder.

    Raises:
        UserError: there is no run, or its plan or lock file is missing or damaged.
    """
    return Run(open_state(locate(folder)))


def load_manifest(manifest: str | os.PathLike[str], settings: Sequence[str] = ()) -> Manifest:
    """A manifest with changes applied.

    Args:
        manifest: a path, or the name of a shipped manifest, such as ``toybox``.
        settings: changes, each ``key=value``, such as ``"filter.default.clip_direction=0.25"``.

    Raises:
        UserError: the manifest is missing or invalid. The message names every wrong key.
    """
    return read_manifest(find_manifest(manifest), settings, STAGES)


def chain_of(manifest: Manifest) -> Chain:
    """The stages of a manifest's run by step, in order."""
    traits = [KEPT] if manifest.captions.keep else []
    traits += [PICTURES] if manifest.captions.picture is not None else []
    return unrolled(manifest.turns, manifest.rounds, manifest.sections, traits)


def generate(
    manifest: str | os.PathLike[str],
    *,
    settings: Sequence[str] = (),
    wave: int | None = None,
    engine: Engine = "ray",
    replace: bool = False,
    verbosity: Verbosity = "normal",
) -> Run:
    """Make a run, or the missing and stale parts of it: the command ``editpairs generate``.

    Args:
        manifest, settings: as for :func:`load_manifest`.
        wave: run only the first ``wave`` parts, through every stage.
        engine: ``ray`` uses all workers and GPUs; ``local`` is a loop in this process.
        replace: whether committed parts of expensive stages may be replaced.
        verbosity: ``quiet``, ``normal`` or ``verbose`` progress on standard output.

    Raises:
        UserError: the input is wrong; nothing was run.
        StageError: a stage could not continue; committed files stay.
    """
    content = load_manifest(manifest, settings)
    progress = Progress(terminal(), verbosity)
    stages = chain_of(content)
    return Run(run_generate(content, stages, progress=progress, wave=wave, engine=engine, replace=replace))


def rerun(
    manifest: str | os.PathLike[str],
    stage: str,
    *,
    settings: Sequence[str] = (),
    parts: range | None = None,
    retry_failed: bool = False,
    engine: Engine = "ray",
    replace: bool = False,
    verbosity: Verbosity = "normal",
) -> Run:
    """Run a stage again on parts that it has committed, then everything stale: ``editpairs rerun``.

    Args:
        manifest, settings, engine, replace, verbosity: as for :func:`generate`.
        stage: the stage to run again.
        parts: the parts; None for all parts that the stage has committed.
        retry_failed: run only failed rows.

    Raises:
        UserError, StageError: as :func:`generate`; or the stage or the parts are unknown.
    """
    content = load_manifest(manifest, settings)
    state = run_rerun(
        content,
        chain_of(content),
        stage,
        progress=Progress(terminal(), verbosity),
        parts=parts,
        retry_failed=retry_failed,
        engine=engine,
        replace=replace,
    )
    return Run(state)
